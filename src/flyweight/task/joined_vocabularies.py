"""The vocabularies of several fields whose arrays lie one after the other, looked up together.

A request has texts in many fields. NumPy's calls cost about as much for five hundred texts as for five thousand, so all
fields are packed, hashed and compared at once, each text within its own field's part of the arrays.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from flyweight.task.packed_texts import AnyWords, Ints, PackedTexts, hash_texts, pack_texts, same_texts, words_of
from flyweight.task.vocabulary import NO_ID, SMALL, Vocabulary

#: The arrays of a vocabulary, in the order in which they lie.
PARTS = ("starts", "ids", "tags", "buckets", "texts")


@dataclass(frozen=True, eq=False)
class JoinedVocabularies(Mapping[str, Vocabulary]):
    """Vocabularies by the names of their fields.

    Args:
        fields: each of them; its arrays are views of `arrays`.
        arrays: for each of `PARTS` those of all fields, one after the other in the order of `fields`; every field's
            tags end with as many zeros.
    """

    fields: Mapping[str, Vocabulary] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Vocabulary:
        return self.fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def ids_by_field(self, texts: Mapping[str, Sequence[str]]) -> dict[str, Ints]:
        """Return the ids of the texts of each field; -1 for one that is no value of its field's vocabulary."""
        large = [name for name in texts if len(self.fields[name]) > SMALL]
        rest = {name: texts[name] for name in large} if len(large) > 1 else {}
        found = {name: self.fields[name].ids_of(some) for name, some in texts.items() if name not in rest}
        if rest:
            counts = [len(some) for some in rest.values()]
            ids = self._ids(list(rest), list(chain.from_iterable(rest.values())), np.array(counts))
            found |= dict(zip(rest, np.split(ids, np.cumsum(counts)[:-1]), strict=True))
        return found

    def _ids(self, names: Sequence[str], texts: Sequence[str], counts: Ints) -> Ints:
        """Return the ids of the texts of several fields, `counts` of each; see `Vocabulary` for how."""
        of = [self._places[name] for name in names]
        seeds, shifts, values, buckets, data, ends = (np.repeat(column[of], counts) for column in self._columns)
        packed = pack_texts(texts)
        short = packed.lengths <= self._longest
        if not short.all():
            packed = PackedTexts(packed.words, packed.starts, np.where(short, packed.lengths, 0))
        hashes = hash_texts(packed, seeds)
        place = values + self.arrays["buckets"][(hashes >> shifts).astype(np.int64) + buckets]
        # Each field has one start more than values, and as many tags more as a look-up compares.
        before = np.repeat(of, counts)
        windows = self._windows[place + before * self._windows.shape[1]]
        place += (windows == hashes.astype(np.uint32)[:, None]).argmax(1)
        short &= place < ends  # a window may reach past the field's last value
        np.minimum(place, ends - 1, out=place)
        at = place + before
        first = self.arrays["starts"][at].astype(np.int64)
        length = self.arrays["starts"][at + 1].astype(np.int64) - first
        found = same_texts(packed, PackedTexts(self._words, first + data, length))
        return np.where(found & short, self.arrays["ids"][place].astype(np.int64), NO_ID)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.fields)}

    @cached_property
    def _windows(self) -> NDArray[np.uint32]:
        return sliding_window_view(self.arrays["tags"], min(one.width for one in self.fields.values()))

    @cached_property
    def _words(self) -> AnyWords:
        return words_of(self.arrays["texts"])

    @cached_property
    def _longest(self) -> int:
        return max(one.longest for one in self.fields.values())

    @cached_property
    def _columns(self) -> tuple[NDArray[Any], ...]:
        """Return of each field the seed, the shift, and where its values, buckets and bytes begin, and values end."""
        every = list(self.fields.values())
        ends = {part: np.cumsum([len(getattr(one, part)) for one in every]) for part in ("ids", "buckets", "texts")}
        return (
            np.array([one.seed for one in every], dtype=np.uint64),
            np.array([one.shift for one in every], dtype=np.uint64),
            *(np.append(0, some[:-1]) for some in ends.values()),
            ends["ids"],
        )
