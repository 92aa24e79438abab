"""Numbers as a person reads them."""

import doctest

import pytest

from flyweight.report import words
from flyweight.report.pictures.canvas import shortened


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (96, "96 B"), (999, "999 B"), (1_000, "1.0 kB"), (541_300, "541.3 kB"), (999_960, "1.0 MB"),
     (187_000_000, "187.0 MB"), (64 * 10**9, "64.0 GB")],
)  # fmt: skip
def test_bytes_in_words(count: int, expected: str) -> None:
    assert words.bytes_in_words(count) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(8192.4, "8,192x"), (487.3, "487x"), (9.96, "10x"), (5.28, "5.3x"), (1.0, "1.0x"), (0.5, "0.50x"),
     (float("nan"), "-"), (float("inf"), "-")],
)  # fmt: skip
def test_ratio_in_words(ratio: float, expected: str) -> None:
    assert words.ratio_in_words(ratio) == expected


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(words).failed == 0


def test_shortened_name_keeps_both_ends() -> None:
    short = shortened("embeddings.household_x_manufacturer.weight", 24)
    assert len(short) == 24
    assert short.startswith("embed")
    assert short.endswith("weight")
    assert shortened("short", 24) == "short"
