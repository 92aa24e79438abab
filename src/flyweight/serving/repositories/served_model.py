"""All that a server's configuration says of a model."""

from dataclasses import dataclass

from flyweight.bundle.read import Bundle
from flyweight.serving.repositories.asked_tensors import Signature

#: Stands in a manifest until the model repository has been uploaded.
STORAGE_URI = "s3://YOUR-BUCKET/PATH/repository"


@dataclass(frozen=True)
class ServedModel:
    """A bundle's model under the name and version that a server is to know it by.

    Args:
        name: a folder's and an address's part.
        version: from 1 on.
        bundle: where it comes from.
        signature: what it is asked and answers.
        storage_uri: where KServe finds the model repository.
    """

    name: str
    version: int
    bundle: Bundle
    signature: Signature
    storage_uri: str = STORAGE_URI

    @property
    def manifest_sha256(self) -> str:
        """Hash of the bundle's manifest, which tells what is served from what was certified."""
        return self.bundle.timing.files["manifest.json"].sha256

    @property
    def infer_path(self) -> str:
        """Where the Open Inference Protocol v2 takes a request for the model."""
        return f"/v2/models/{self.name}/infer"
