"""Raw values: what a field takes, and look-ups held against a plain dict."""

import pickle
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flyweight.errors import InputError
from flyweight.task import vocabulary
from flyweight.task.field import Field
from flyweight.task.packed_texts import hash_texts, pack_texts, same_texts
from flyweight.task.vocabulary import Vocabulary, make_vocabulary

TEXTS = st.text(max_size=24) | st.text("ab\0\x7fé€😀", max_size=9) | st.integers(-(2**70), 2**70).map(str)


@pytest.fixture(params=["dict", "hashed"], autouse=True)
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small vocabularies are looked up in a dict; every test is run by the arrays too."""
    if request.param == "hashed":
        monkeypatch.setattr(vocabulary, "SMALL", 0)


def made(**given: object) -> Vocabulary:
    found = Field("candidate", **given).vocabulary  # type: ignore[arg-type]
    assert isinstance(found, Vocabulary)
    return found


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(TEXTS, st.integers(0, 2**40), min_size=1, max_size=60), st.lists(TEXTS, max_size=40))
@example({"": 0}, ["", "\0", "\0\0"])
@example({"a\0": 1, "a": 2, "a\0\0": 3}, ["a", "a\0", "a\0\0", "a\0\0\0"])
@example({"x" * 4096: 7}, ["x" * 4096, "x" * 4095, "x" * 4097, "x" * 100_000])
@example({"12345678": 1, "123456789": 2}, ["12345678", "123456789", "1234567"])
@example({"é": 1, "e\u0301": 2}, ["é", "e\u0301", "\ud800"])
def test_look_up_agrees_with_a_dict(known: dict[str, int], others: list[str]) -> None:
    asked = [*others, *known]
    found = make_vocabulary(list(known), list(known.values()))
    for one in (found, pickle.loads(pickle.dumps(found))):
        assert one.ids_of(asked).tolist() == [known.get(text, -1) for text in asked]
    assert found.pairs() == sorted((id_, text) for text, id_ in known.items())
    assert found.lost() == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(TEXTS, min_size=2, max_size=30), st.integers(0, 2**32 - 1))
def test_equal_texts_hash_alike_and_only_they_are_the_same(texts: list[str], seed: int) -> None:
    forth, back = pack_texts(texts), pack_texts(texts[::-1])
    assert hash_texts(forth, seed).tolist() == hash_texts(back, seed).tolist()[::-1]
    assert same_texts(forth, back).tolist() == [a == b for a, b in zip(texts, texts[::-1], strict=True)]


def test_same_values_in_another_order_make_the_same_bytes() -> None:
    some, others = (make_vocabulary(texts, ids) for texts, ids in ((["a", "b"], [3, 4]), (["b", "a"], [4, 3])))
    assert all(np.array_equal(getattr(some, part), getattr(others, part)) for part in ("texts", "ids", "tags"))


def test_texts_whose_hashes_meet_get_another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def colliding(texts: object, seed: int) -> object:
        hashes = hash_texts(texts, seed)  # type: ignore[arg-type]
        return hashes if seed >= 2 else np.zeros_like(hashes)

    monkeypatch.setattr(vocabulary, "hash_texts", colliding)
    found = make_vocabulary(["a", "b", "c"], [0, 1, 2])
    assert found.seed == 2
    assert found.ids_of(["c", "b", "d"]).tolist() == [2, 1, -1]


def test_texts_that_no_seed_tells_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "hash_texts", lambda texts, seed: np.zeros(len(texts.lengths), np.uint64))
    with pytest.raises(InputError, match="The 2 values of a vocabulary cannot be told apart"):
        make_vocabulary(["a", "b"], [0, 1])


@pytest.mark.parametrize(
    "values", [["a", "b", "7"], np.array(["a", "b", "7"]), ("a", "b", 7), dict.fromkeys(["a", "b", "7"]).keys()]
)
def test_values_in_the_order_of_their_ids_have_those_ids(values: Sequence[str]) -> None:
    assert made(rows=3, vocabulary=values).ids_of(["7", "b", "a", "07", ""]).tolist() == [2, 1, 0, -1, -1]


@pytest.mark.parametrize("values", [[900_017, -3], np.array([900_017, -3]), {900_017: 0, -3: 1}])
def test_whole_numbers_are_their_decimal_text(values: Sequence[int]) -> None:
    assert made(rows=2, vocabulary=values).ids_of(["-3", "900017", "900017.0"]).tolist() == [1, 0, -1]


def test_the_row_of_unknown_values_may_have_none() -> None:
    assert made(rows=3, unknown=1, vocabulary=["a", None, "b"]).ids_of(["b", "a", "None"]).tolist() == [2, 0, -1]


def test_several_values_may_share_a_row() -> None:
    found = made(rows=2, vocabulary={"rare": 1, "rarer": 1, "often": 0})
    assert found.ids_of(["rarer", "rare", "often"]).tolist() == [1, 1, 0]
    assert found.values() == ["often", "rare", "rarer"]


def test_a_field_is_told_by_its_model_and_not_by_its_raw_values() -> None:
    plain, with_values = Field(rows=2), Field(rows=2, vocabulary=["a", "b"])
    assert plain == with_values
    assert repr(plain) == repr(with_values)
    assert plain.vocabulary is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rows": 2, "vocabulary": ["a", "a"]}, "holds 'a' twice, for ids 0 and 1"),
        ({"rows": 2, "vocabulary": ["7", 7]}, "holds '7' twice, for ids 0 and 1; a whole number is the same value"),
        ({"rows": 2, "vocabulary": ["a", "b", "c"]}, "has 3 values and rows=2; the last have no row"),
        ({"rows": 2, "vocabulary": {"a": 2}}, "ids from 2 to 2, and they lie from 0 to 1"),
        ({"rows": 2, "vocabulary": {"a": -1}}, "ids from -1 to -1"),
        ({"rows": 2, "vocabulary": {"a": 0.0}}, "ids of a vocabulary are whole numbers; seen 0.0"),
        ({"rows": 2, "vocabulary": {"a": True}}, "ids of a vocabulary are whole numbers; seen True"),
        ({"rows": 2, "vocabulary": ["a", float("nan")]}, "that of id 1 is NaN, float"),
        ({"rows": 2, "vocabulary": [1.5, 2.0]}, "that of id 0 is 1.5, float; give whole numbers as such"),
        ({"rows": 2, "vocabulary": ["a", None]}, "that of id 1 is None, NoneType; only the row of unknown values"),
        ({"rows": 2, "vocabulary": [b"a"]}, "is b'a', bytes; decode them"),
        ({"rows": 2, "vocabulary": [True]}, "is True, bool"),
        ({"rows": 2, "vocabulary": "ab"}, "a list of raw values in the order of their ids, or a mapping.*seen str"),
        ({"rows": 2, "vocabulary": 3}, "seen int"),
        ({"rows": 2, "vocabulary": []}, "needs at least one value"),
        ({"rows": 2, "vocabulary": ["x" * 4097]}, "up to 4,096 bytes; 'x+'... takes 4,097"),
        ({"rows": 2, "vocabulary": ["a", "\ud800"]}, "is no Unicode text"),
        ({"vocabulary": ["a"]}, "belongs to a field of ids; give rows= with it"),
    ],
)
def test_what_is_no_vocabulary_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        made(**given)


def test_many_values_are_found_and_no_others() -> None:
    texts = [f"sku-{number * 7919:07d}" for number in range(20_000)]
    found = make_vocabulary(texts, range(len(texts)))
    picked = np.random.default_rng(0).integers(0, len(texts), 500)
    assert found.ids_of([texts[place] for place in picked]).tolist() == picked.tolist()
    assert (found.ids_of([f"SKU-{place}" for place in picked]) == -1).all()
