"""What raw values mean: strings, or any ids of a shop's own, as the ids that a model was trained with.

A bundle may carry its vocabularies (`task.vocabulary`); a file, `{"item_id": {"sku-17": 42}}`, may bring others, and an
input that the file names is looked up there alone.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import InputError
from flyweight.serving.json_body import kind_of
from flyweight.serving.refusal import Refusal
from flyweight.task.joined_vocabularies import JoinedVocabularies
from flyweight.task.vocabulary import NO_ID


@dataclass(frozen=True)
class Vocabularies:
    """The raw values of each input that has them.

    Args:
        ids: for each input that the file names the id of each raw value.
        carried: those of the bundle.
        digest: SHA-256 of the file; "" where there is none.
    """

    ids: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    carried: JoinedVocabularies = field(default_factory=JoinedVocabularies)
    digest: str = ""

    def over(self, carried: JoinedVocabularies) -> "Vocabularies":
        """Return these over those that a bundle carries."""
        return replace(self, carried=carried)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """How many raw values each input has that takes them."""
        sizes = {name: len(one) for name, one in self.carried.items()}
        return sizes | {name: len(ids) for name, ids in self.ids.items()}

    def ids_of(self, raw: Mapping[str, NDArray[Any]], maps_unknown: Collection[str]) -> dict[str, NDArray[np.int64]]:
        """Return the ids of each input's raw values; one that its vocabulary lacks is -1, which the ranker counts.

        Args:
            raw: texts, in arrays of any shape.
            maps_unknown: inputs for which the model has an id for values that the vocabulary lacks.

        Raises:
            Refusal: the vocabulary lacks a value and the model has no id for such; or there is none, and the text is no
                number.
        """
        texts: dict[str, list[str]] = {name: array.ravel().tolist() for name, array in raw.items()}
        carried = {name: some for name, some in texts.items() if name in self.carried and name not in self.ids}
        found = self.carried.ids_by_field(carried) if carried else {}
        for name, some in texts.items():
            if name not in found:
                found[name] = self._ids_beside(name, some)
            if name not in maps_unknown and name in self.sizes and (found[name] == NO_ID).any():
                lacking = some[int((found[name] == NO_ID).argmax())]
                raise Refusal(
                    f"Input {name!r} holds {lacking[:60]!r}, which its vocabulary of {self.sizes[name]:,} values "
                    "lacks, and the model has no id for unknown values."
                )
        return {name: ids.reshape(raw[name].shape) for name, ids in found.items()}

    def _ids_beside(self, name: str, texts: list[str]) -> NDArray[np.int64]:
        """Return ids by the file, or numbers that are written as text."""
        known = self.ids.get(name)
        if known is None:
            return np.array([_number(name, text) for text in texts], dtype=np.int64)
        return np.array([known.get(text, NO_ID) for text in texts], dtype=np.int64)


def _number(name: str, text: str) -> int:
    try:
        number = int(text)
        if -(2**63) <= number < 2**63:
            return number
    except ValueError:
        pass
    raise Refusal(
        f"Input {name!r} holds the text {text[:60]!r} and there is no vocabulary of it; give ids, write its raw values "
        "into the bundle (flyweight vocabulary), or serve with --vocabulary."
    ) from None


def read_vocabularies(path: Path) -> Vocabularies:
    """Read `{"input": {"raw value": id}}` from a JSON file.

    Raises:
        InputError: the file cannot be read or is not that.
    """
    import orjson

    try:
        data = path.read_bytes()
        found = orjson.loads(data)
    except OSError as error:
        raise InputError(f"The vocabulary {path} cannot be read: {error.strerror}; check --vocabulary.") from error
    except orjson.JSONDecodeError as error:
        raise InputError(f"The vocabulary {path} is no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InputError(f"The vocabulary {path} must be an object of inputs; seen {kind_of(found)}.")
    for name, ids in found.items():
        if not isinstance(ids, dict) or any(type(id_) is not int for id_ in ids.values()):
            raise InputError(f"The vocabulary {path}: {name!r} must be an object of ids by raw value.")
    return Vocabularies(found, digest=hashlib.sha256(data).hexdigest())
