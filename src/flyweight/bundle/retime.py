"""Writing `timing.json` again, in place: what the clock says here. Nothing else of a bundle ever changes."""

import os
import secrets

from flyweight.bundle.manifest import TIMING
from flyweight.bundle.read import Bundle
from flyweight.bundle.strict_json import canonical, checksum
from flyweight.bundle.timing import Timing, TimingFile
from flyweight.errors import InputError


def retime(bundle: Bundle, timing: Timing) -> TimingFile:
    """Replace a bundle's timing and return what is on disk now; readers see the old file or the new one, whole.

    The hashes of the manifest and the report stay as they were read and found right; the report keeps saying what was
    measured when the bundle was made.

    Raises:
        InputError: the file cannot be written.
    """
    content = timing.model_dump()
    content["files"] = {name: file.model_dump() for name, file in bundle.timing.files.items()}
    written = TimingFile.model_validate({**content, "checksum": checksum(content)})
    target = bundle.path / TIMING
    # Beside the bundle, not in it: a reader refuses a folder with a file it does not know.
    part = bundle.path.absolute().parent / f".{bundle.path.name}.{secrets.token_hex(4)}.timing"
    try:
        with part.open("xb") as stream:
            stream.write(canonical({**content, "checksum": written.checksum}))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror}); it is as it was.") from error
    finally:
        part.unlink(missing_ok=True)
    return written
