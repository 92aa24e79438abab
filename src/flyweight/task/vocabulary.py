"""The raw values of an id field and their ids, in arrays that can lie in a file and be shared by processes.

What is wanted of it: millions of values that are open in milliseconds, no copy of them in each process, and hundreds
looked up in a fraction of a millisecond. A dict of 10**6 values takes 0.1 GB and half a second in every process, and
each look-up waits for memory several times. Here values lie in the order of their hashes. The hash's first bits name a
bucket of few values, 32 others are kept beside each value, and all buckets of a call are compared with what is looked
for at once. The bytes decide, so a look-up is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, repeat
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from flyweight.errors import InputError
from flyweight.task.packed_texts import PAD, AnyWords, PackedTexts, Words, hash_texts, pack_texts, same_texts, words_of

#: Up to so many values a dict is quicker, as it stays in the caches nearest to a core.
SMALL = 2**9
#: Bytes of the longest value.
LONGEST = 4096
#: Values of the fullest bucket at most: a look-up compares as many for each text.
WIDEST = 256
#: What a text that is no value is taken for.
NO_ID = -1
_TAG_BITS = 32
#: Of random hashes the first seed will do; a second is needed once in thousands of large vocabularies.
_SEEDS = 64
_CHUNK = 2**16


@dataclass(frozen=True, eq=False, repr=False)
class Vocabulary:
    """V raw values, each with its id, in the order of their hashes. Whole numbers stand as their decimal text.

    Args:
        seed: of the hash.
        texts: (bytes,) uint8, the values in UTF-8 one after the other, then `PAD` zeros.
        starts: (V + 1,) where each begins in `texts`, and the end of the last.
        ids: (V,) the id of each.
        tags: (V + longest bucket,) uint32, the last bits of each hash, then zeros.
        buckets: (2**bits + 1,) where the values begin whose hashes begin with the bits of each number, and V.

    Example:
        >>> make_vocabulary(["sku-1", "sku-2"], [0, 1]).ids_of(["sku-2", "sku-3"]).tolist()
        [1, -1]
    """

    seed: int
    texts: NDArray[np.uint8]
    starts: NDArray[Any]
    ids: NDArray[Any]
    tags: NDArray[np.uint32]
    buckets: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self):,} values)"

    def __reduce__(self) -> tuple[Any, ...]:  # without what was worked out, which is larger
        arrays = (self.texts, self.starts, self.ids, self.tags, self.buckets)
        return Vocabulary, (self.seed, *map(np.array, arrays))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(one.nbytes for one in (self.texts, self.starts, self.ids, self.tags, self.buckets))

    def ids_of(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the ids of texts, (texts,); -1 for one that is no value of this vocabulary."""
        if len(self) <= SMALL:
            return np.fromiter(map(self._small.get, texts, repeat(NO_ID)), np.int64, len(texts))
        return self._hashed_ids(texts)

    def _hashed_ids(self, texts: Sequence[str]) -> NDArray[np.int64]:
        packed = pack_texts(texts)
        short = packed.lengths <= self.longest
        if not short.all():  # a text that is longer than any value is none, and its bytes are not worth a look
            packed = PackedTexts(packed.words, packed.starts, np.where(short, packed.lengths, 0))
        place, found = self._places(packed)
        return np.where(found & short, self.ids[place].astype(np.int64), NO_ID)

    def values(self) -> list[str]:
        """Return all values, in the order of their ids and, of one id, of the texts."""
        return [text for _, text in self.pairs()]

    def pairs(self) -> list[tuple[int, str]]:
        """Return every value after its id, in their order."""
        data, ends = self.texts.tobytes(), self.starts.tolist()
        texts = [data[start:end].decode() for start, end in pairwise(ends)]
        return sorted(zip(self.ids.tolist(), texts, strict=True))

    def lost(self) -> int:
        """Return how many values a look-up in the arrays would not find with their own id: 0 where they are whole."""
        pairs, wrong = self.pairs(), 0
        for place in range(0, len(pairs), _CHUNK):
            ids, texts = zip(*pairs[place : place + _CHUNK], strict=True)
            wrong += int((self._hashed_ids(texts) != ids).sum())
        return wrong

    @property
    def width(self) -> int:
        """How many tags a look-up compares: no bucket holds more values."""
        return len(self.tags) - len(self)

    @cached_property
    def _small(self) -> dict[str, int]:
        return {text: id_ for id_, text in self.pairs()}

    @cached_property
    def _words(self) -> AnyWords:
        return words_of(self.texts)

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest value."""
        return int(np.diff(self.starts).max(initial=0))

    @cached_property
    def _windows(self) -> NDArray[np.uint32]:
        return sliding_window_view(self.tags, self.width)

    @cached_property
    def shift(self) -> np.uint64:
        """By how much a hash is shifted to give its bucket."""
        return np.uint64(64 - (len(self.buckets) - 1).bit_length() + 1)

    def _places(self, texts: PackedTexts) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return where each text lies, and whether it does.

        No two values share bucket and tag, so the first equal tag from a bucket's beginning on is the one to compare.
        """
        hashes = hash_texts(texts, self.seed)
        place = self.buckets[(hashes >> self.shift).astype(np.int64)].astype(np.int64)
        place += (self._windows[place] == hashes.astype(np.uint32)[:, None]).argmax(1)
        np.minimum(place, len(self) - 1, out=place)
        starts = self.starts[place].astype(np.int64)
        lengths = self.starts[place + 1].astype(np.int64) - starts
        return place, same_texts(texts, PackedTexts(self._words, starts, lengths))


def make_vocabulary(texts: Sequence[str], ids: Sequence[int] | NDArray[np.int64]) -> Vocabulary:
    """Return the vocabulary of different texts with the ids >= 0 that they have; the same for any order of them.

    Raises:
        InputError: a text is no Unicode or is longer than `LONGEST`, or there is none.
    """
    if not len(texts):
        raise InputError("A vocabulary needs at least one value; leave it out where there is none.")
    packed = pack_texts(texts)
    _check_texts(texts, packed)
    seed, hashes, bits = _hashed(packed)
    order = np.argsort(hashes)
    hashes, lengths = hashes[order], packed.lengths[order]
    data = "".join([texts[place] for place in order.tolist()]).encode() + bytes(PAD)
    counts = np.bincount((hashes >> np.uint64(64 - bits)).astype(np.int64), minlength=1 << bits)
    tags = np.zeros(len(texts) + int(counts.max()), dtype=np.uint32)
    tags[: len(texts)] = hashes.astype(np.uint32)
    return Vocabulary(
        seed,
        np.frombuffer(data, np.uint8),
        _narrow(np.concatenate([[0], np.cumsum(lengths)])),
        _narrow(np.asarray(ids, dtype=np.int64)[order]),
        tags,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32),
    )


def _check_texts(texts: Sequence[str], packed: PackedTexts) -> None:
    longest = int(packed.lengths.argmax())
    if packed.lengths[longest] > LONGEST:
        raise InputError(
            f"A raw value takes up to {LONGEST:,} bytes; {texts[longest][:40]!r}... takes {packed.lengths[longest]:,}."
        )
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        odd = error.object[error.start]
        seen = next(text for text in texts if odd in text)
        raise InputError(f"The raw value {seen[:60]!r} is no Unicode text (half a surrogate pair); mend it.") from None


def _hashed(packed: PackedTexts) -> tuple[int, Words, int]:
    """Return a seed that gives no two texts the same bucket and tag, the hashes, and the bits that name a bucket."""
    count = len(packed.lengths)
    bits = max(1, (count // 2).bit_length())
    own = np.uint64(2**64 - 2 ** (64 - bits) | 2**_TAG_BITS - 1)
    for seed in range(_SEEDS):
        hashes = hash_texts(packed, seed)
        known = np.sort(hashes & own)
        fullest = np.bincount((known >> np.uint64(64 - bits)).astype(np.int64)).max()
        if not (known[1:] == known[:-1]).any() and fullest <= WIDEST:
            return seed, hashes, bits
    raise InputError(f"The {count:,} values of a vocabulary cannot be told apart; give different ones, or fewer.")


def _narrow(numbers: NDArray[np.int64]) -> NDArray[Any]:
    """Return whole numbers in 32 bits where they fit."""
    return numbers.astype(np.uint32 if int(numbers.max(initial=0)) < 2**32 else np.uint64)
