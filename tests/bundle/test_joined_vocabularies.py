"""Texts of several fields looked up together, each by its own field's vocabulary, held against plain dicts."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flyweight.bundle.manifest import VocabularyEntry
from flyweight.bundle.vocabulary_file import read_vocabularies, write_vocabularies
from flyweight.task import joined_vocabularies
from flyweight.task.joined_vocabularies import JoinedVocabularies
from flyweight.task.vocabulary import make_vocabulary

TEXTS = st.text("ab\0é", max_size=3) | st.text(max_size=20)
VALUES = st.dictionaries(TEXTS, st.integers(0, 2**36), min_size=1)
FIELDS = st.dictionaries(st.text("ab.", max_size=3), VALUES, min_size=1)
ROWS = 2**37


def kept(known: dict[str, dict[str, int]]) -> JoinedVocabularies:
    """Write vocabularies to a file and read them again; the map outlives the file's name."""
    made = {name: make_vocabulary(list(ids), list(ids.values())) for name, ids in known.items()}
    entries = {name: VocabularyEntry(values=len(one), seed=one.seed) for name, one in made.items()}
    with tempfile.TemporaryDirectory() as folder:
        write_vocabularies(Path(folder) / "v", made)
        return read_vocabularies(Path(folder) / "v", entries, dict.fromkeys(made, ROWS))


@settings(max_examples=120, deadline=None)
@given(FIELDS, st.lists(TEXTS, max_size=30))
@example({"a": {"x": 1}, "b": {"x": 2, "y": 3}, "c": {"y": 4}}, ["x", "y", ""])
@example({"a": {"": 2**36}, "b": {"x" * 4096: 1}}, ["x" * 4096, "x" * 5000, "\ud800"])
def test_each_field_looks_up_in_its_own_vocabulary(known: dict[str, dict[str, int]], others: list[str]) -> None:
    small, joined_vocabularies.SMALL = joined_vocabularies.SMALL, 0
    try:
        joined = kept(known)
        every = [*others, *(text for ids in known.values() for text in ids)]
        asked = {name: every[place:] for place, name in enumerate(known)}
        found = joined.ids_by_field(asked)
    finally:
        joined_vocabularies.SMALL = small
    assert {name: ids.tolist() for name, ids in found.items()} == {
        name: [known[name].get(text, -1) for text in texts] for name, texts in asked.items()
    }
    assert all(joined[name].lost() == 0 for name in joined)


def test_large_and_small_fields_and_no_texts_at_all() -> None:
    known = {name: {f"{name} {n}": n for n in range(size)} for name, size in (("a", 3000), ("b", 5), ("c", 900))}
    joined = kept(known)
    asked = {"a": ["a 2999", "b 1", "c 1"], "b": ["b 1", "a 1"], "c": []}
    assert {name: ids.tolist() for name, ids in joined.ids_by_field(asked).items()} == {
        "a": [2999, -1, -1], "b": [1, -1], "c": [],
    }  # fmt: skip
    assert joined.ids_by_field({}) == {}
    assert [(name, len(one)) for name, one in joined.items()] == [("a", 3000), ("b", 5), ("c", 900)]
    assert not JoinedVocabularies()
    assert joined.arrays["ids"].dtype == np.uint32
