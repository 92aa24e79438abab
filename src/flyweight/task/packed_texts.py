"""Texts one after another in one array of bytes, so that hundreds are hashed and compared by a few dozen NumPy calls.

They are read eight bytes at a time: a view of the bytes as whole numbers that begin at every byte, of which the bytes
past a text's end are masked away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
#: Eight bytes that may begin anywhere: taken as plain bytes, as NumPy is slower with numbers that do not lie evenly.
AnyWords = NDArray[np.void]
#: Bytes after the last text, so that a word may begin at any byte of one.
PAD = 8
_WORD = 8
#: What of a word belongs to a text, by how many of its bytes do.
_MASKS = np.array([(1 << (8 * count)) - 1 for count in range(_WORD + 1)], dtype=np.uint64)
_ODD, _OTHER_ODD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


@dataclass(frozen=True, slots=True)
class PackedTexts:
    """Texts in UTF-8.

    Args:
        words: (bytes + 1,), the eight bytes from each byte on; see `words_of`.
        starts, lengths: (texts,), in bytes.
    """

    words: AnyWords
    starts: Ints
    lengths: Ints


def words_of(data: bytes | NDArray[np.uint8]) -> AnyWords:
    """Return a view of bytes, the last `PAD` of them 0, as the eight bytes that begin at each."""
    return np.ndarray((len(data) - PAD + 1,), dtype=f"V{_WORD}", buffer=data, strides=(1,))


def pack_texts(texts: Sequence[str]) -> PackedTexts:
    """Return texts as packed ones; what is no Unicode (half a surrogate pair) equals no text that is."""
    joined = "".join(texts)
    if joined.isascii():
        data, counted = joined.encode(), map(len, texts)
    else:
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        data, counted = b"".join(parts), map(len, parts)
    lengths = np.fromiter(counted, np.int64, len(texts))
    return PackedTexts(words_of(data + bytes(PAD)), np.cumsum(lengths) - lengths, lengths)


def hash_texts(texts: PackedTexts, seed: int | Words) -> Words:
    """Return a hash of each text, (texts,); every seed, one or (texts,), gives other ones.

    Words are multiplied in one after the other, as in wyhash's and xxHash's last steps: not secret, and quick.
    """
    hashes = texts.lengths.astype(np.uint64) * _ODD ^ np.asarray(seed, dtype=np.uint64)
    for place in range(0, int(texts.lengths.max(initial=1)), _WORD):
        live = slice(None) if not place else np.flatnonzero(texts.lengths > place)
        mixed = (hashes[live] ^ _word(texts, live, place)) * _ODD
        mixed ^= mixed >> _HALF
        mixed *= _OTHER_ODD
        hashes[live] = mixed ^ (mixed >> _HALF)
    return hashes


def same_texts(some: PackedTexts, others: PackedTexts) -> NDArray[np.bool_]:
    """Return whether texts are the same, pair by pair, (texts,)."""
    same: NDArray[np.bool_] = some.lengths == others.lengths
    for place in range(0, int(some.lengths.max(initial=1)), _WORD):
        live = np.flatnonzero(same & (some.lengths > place))
        differ = _numbers(some, live, place) ^ _numbers(others, live, place)
        same[live] = (differ & _masks(some, live, place)) == 0
    return same


def _word(texts: PackedTexts, live: Ints | slice, place: int) -> Words:
    """Return the word that begins `place` bytes into each live text, without what lies after the text."""
    return np.asarray(_numbers(texts, live, place) & _masks(texts, live, place))


def _numbers(texts: PackedTexts, live: Ints | slice, place: int) -> Words:
    return texts.words[texts.starts[live] + place].view("<u8")


def _masks(texts: PackedTexts, live: Ints | slice, place: int) -> Words:
    return _MASKS.take(np.minimum(texts.lengths[live] - place, _WORD))
