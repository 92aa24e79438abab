"""A bundle that carries the raw values of its ids: written, read, asked with them, added to later, spoilt."""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import pytest
import safetensors.numpy
import tiny_models

from flyweight.bundle.add_vocabularies import add_vocabularies, read_raw_values
from flyweight.bundle.inspect import inspect
from flyweight.bundle.load import load
from flyweight.bundle.manifest import InputEntry
from flyweight.bundle.read import read_bundle
from flyweight.bundle.verify import verify
from flyweight.bundle.vocabulary_file import write_arrays
from flyweight.bundle.write import write_bundle
from flyweight.errors import BundleError, InputError
from flyweight.task.joined_vocabularies import PARTS
from flyweight.task.vocabulary import make_vocabulary

FILE = "vocabularies.safetensors"
SKUS = [f"sku-{number}" for number in range(tiny_models.ITEMS)]
USERS = {f"Zoë {number}": number for number in range(tiny_models.USERS)}
UNKNOWN = tiny_models.INPUTS | {
    "item_id": InputEntry(role="candidate", rows=tiny_models.ITEMS, dtype="int64", shape=[], unknown=2)
}


def plain(folder: Path, **changes: Any) -> Path:
    return write_bundle(folder / "r.fly", tiny_models.contents(folder / "e", **changes))


def with_raw_values(folder: Path, **changes: Any) -> Path:
    vocabularies = {
        "item_id": make_vocabulary(SKUS, range(len(SKUS))),
        "user_id": make_vocabulary(list(USERS), list(USERS.values())),
    }
    contents = dataclasses.replace(tiny_models.contents(folder / "e", **changes), vocabularies=vocabularies)
    return write_bundle(folder / "r.fly", contents)


def scores(user: int, items: list[int], prices: list[float]) -> Any:
    return tiny_models.expected(np.full(len(items), user), np.array(items), np.array(prices, np.float32))


def test_raw_values_give_the_scores_of_their_ids(tmp_path: Path) -> None:
    items, prices = [7, 0, 299], [0.5, 1.0, 2.0]
    due = scores(4, items, prices)
    texts = [SKUS[item] for item in items]
    with load(with_raw_values(tmp_path)) as ranker:
        for column in (texts, np.array(texts), np.array(texts, dtype=object), tuple(texts)):
            found = ranker.score({"user_id": "Zoë 4"}, {"item_id": column, "price": prices})
            np.testing.assert_allclose(found, due, rtol=1e-5)
        np.testing.assert_allclose(ranker.score({"user_id": 4}, {"item_id": items, "price": prices}), due, rtol=1e-5)
        many = ranker.score_many({"user_id": ["Zoë 4"]}, {"item_id": texts, "price": prices}, [0, 3])
        flat = ranker.predict({"user_id": ["Zoë 4"] * 3, "item_id": texts, "price": prices})
    np.testing.assert_allclose([many, flat], [due, due], rtol=1e-5)


def test_unseen_values_are_the_unknown_id_and_counted(tmp_path: Path) -> None:
    given = {"item_id": ["sku-5", "sku-x", ""], "price": [1.0, 1.0, 1.0]}
    path = with_raw_values(tmp_path, inputs=UNKNOWN)
    with load(path) as ranker:
        found = ranker.score({"user_id": 1}, given)
        assert ranker.unknown_ids == {"item_id": 2}
    np.testing.assert_allclose(found, scores(1, [5, 2, 2], [1.0, 1.0, 1.0]), rtol=1e-5)
    words = "'item_id' holds 'sku-x', which its vocabulary of 300 values lacks, and unknown values are to be refused"
    with load(path, unknown="refuse") as ranker, pytest.raises(InputError, match=words):
        ranker.score({"user_id": 1}, given)


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("Zoe 4", "'user_id' holds 'Zoe 4', which its vocabulary of 20 values lacks, and the model has no id for unkn"),
        ([["Zoë 4"], ["Zoë 5"]], "has shape"),
        (["Zoë 4", 5, 6], "'user_id' holds text beside numbers"),
        (b"Zoe", "holds text, b'Zoe'"),
    ],
)
def test_values_that_mean_nothing_are_refused(tmp_path: Path, user: Any, words: str) -> None:
    with load(with_raw_values(tmp_path)) as ranker, pytest.raises(InputError, match=words):
        ranker.score({"user_id": user}, {"item_id": [1, 2, 3], "price": [1.0, 1.0, 1.0]})


def test_raw_values_of_relabelled_rows_land_on_the_right_row(tmp_path: Path) -> None:
    maps = {"item_id": [(7 * place + 3) % tiny_models.ITEMS for place in range(tiny_models.ITEMS)]}
    with load(with_raw_values(tmp_path, id_maps=maps)) as ranker:
        found = ranker.score({"user_id": 0}, {"item_id": ["sku-1", "sku-200"], "price": [0.0, 0.0]})
    np.testing.assert_allclose(found, scores(0, [10, 1403 % tiny_models.ITEMS], [0.0, 0.0]), rtol=1e-5)


def test_a_bundle_without_them_is_what_it_was(tmp_path: Path) -> None:
    manifest = json.loads((plain(tmp_path) / "manifest.json").read_text())
    assert manifest["format"] == 2
    assert "vocabularies" not in manifest


def test_raw_values_do_not_count_as_the_models_bytes(tmp_path: Path) -> None:
    bare, full = inspect(plain(tmp_path / "a")), inspect(with_raw_values(tmp_path / "b"))
    assert bare["vocabularies"] == {}
    assert {name: one["values"] for name, one in full["vocabularies"].items()} == {"item_id": 300, "user_id": 20}
    assert full["after"] == bare["after"]
    assert sum(one["bytes"] for one in full["vocabularies"].values()) < full["files"][FILE]


def test_the_file_opens_as_safetensors(tmp_path: Path) -> None:
    path = with_raw_values(tmp_path)
    arrays = safetensors.numpy.load_file(path / FILE)
    bundle = read_bundle(path)
    np.testing.assert_array_equal(arrays["item_id.ids"], bundle.vocabularies["item_id"].ids)
    assert arrays["user_id.texts"].tobytes().startswith("Zoë".encode())
    assert bundle.vocabularies["item_id"].values() == SKUS


def test_adding_gives_the_bundle_that_compressing_with_them_gives(tmp_path: Path) -> None:
    path, due = plain(tmp_path / "a"), with_raw_values(tmp_path / "b")
    assert add_vocabularies(path, {"item_id": SKUS}) == {"item_id": 300}
    assert add_vocabularies(path, {"user_id": USERS}) == {"item_id": 300, "user_id": 20}
    assert {file.name: file.read_bytes() for file in path.iterdir()} == {
        file.name: file.read_bytes() for file in due.iterdir()
    }
    assert [entry.name for entry in (tmp_path / "a").iterdir() if entry.name.startswith(".")] == []
    assert verify(path, engine="onnxruntime").ok


def test_adding_replaces_the_vocabulary_of_an_input(tmp_path: Path) -> None:
    path = with_raw_values(tmp_path)
    add_vocabularies(path, {"user_id": {"only": 3}})
    found = read_bundle(path).vocabularies
    assert found["user_id"].pairs() == [(3, "only")]
    assert len(found["item_id"]) == 300


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"item": ["a"]}, "'item' is not an input of .*r.fly; the nearest of ids is 'item_id'"),
        ({"price": ["a"]}, "'price' takes numbers"),
        ({"user_id": ["a"] * 2}, "Input 'user_id': The vocabulary holds 'a' twice"),
        ({"user_id": [str(one) for one in range(21)]}, "Input 'user_id': The vocabulary has 21 values and rows=20"),
        ({}, "No vocabulary was given"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path, given: Any, words: str) -> None:
    path = plain(tmp_path)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(InputError, match=words):
        add_vocabularies(path, given)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": {"x": 1, "x": 2}}', "'x' is there twice"),
        ("[1]", "must be an object of inputs.*seen list"),
        ("{}", "seen an empty one"),
        ("{", "is no JSON"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(InputError, match=words):
        read_raw_values(tmp_path / "v.json")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_raw_values(tmp_path / "none.json")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> mutations.Files:
    path = with_raw_values(tmp_path_factory.mktemp("sound"))
    return {file.name: file.read_bytes() for file in path.iterdir()}


def spoilt(tmp_path: Path, files: mutations.Files) -> Path:
    path = tmp_path / "s.fly"
    path.mkdir()
    for name, data in mutations.repaired(files).items():
        (path / name).write_bytes(data)
    return path


def with_arrays(files: mutations.Files, **changes: Any) -> mutations.Files:
    """Replace arrays of the items' vocabulary."""
    arrays = safetensors.numpy.load(files[FILE])
    parts = {f"{name}.{part}": arrays[f"{name}.{part}"] for part in PARTS for name in ("item_id", "user_id")}
    for part, change in changes.items():
        parts[f"item_id.{part}"] = change(parts[f"item_id.{part}"].copy())
    with tempfile.TemporaryDirectory() as folder:
        write_arrays(Path(folder) / FILE, parts)
        return {**files, FILE: (Path(folder) / FILE).read_bytes()}


def put(place: int, value: int) -> Any:
    def change(array: Any) -> Any:
        array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("ids", put(3, 300), "the vocabulary of 'item_id' has the id 300, and the input 300 rows"),
        ("ids", lambda a: a[:-1], "has 299 ids, 301 starts"),
        ("starts", put(0, 1), "has starts that are not those"),
        ("starts", put(5, 2**32 - 1), "has starts that are not those"),
        ("starts", lambda a: a * 0, "has starts that are not those"),
        ("buckets", put(4, 301), "buckets that do not fit"),
        ("buckets", lambda a: a[:-2], "buckets that do not fit"),
        ("tags", lambda a: a[:300], "300 tags for 300 values"),
        ("tags", lambda a: np.resize(a, 700), "700 tags for 300 values"),
        ("tags", lambda a: a.astype(np.uint64), "has a header that is none|tags of different types|another order"),
        ("tags", lambda a: np.append(a, a[:1] * 0), "different numbers of zeros"),
        ("texts", put(0, 0x80), "holds bytes that are no text"),
        ("texts", put(-1, 1), "has starts that are not those"),
    ],
)
def test_arrays_that_a_look_up_cannot_rely_on_are_refused(
    tmp_path: Path, sound: mutations.Files, part: str, change: Any, words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        read_bundle(spoilt(tmp_path, with_arrays(sound, **{part: change})))


def test_values_that_lie_elsewhere_than_their_hash_says_fail_verification(
    tmp_path: Path, sound: mutations.Files
) -> None:
    path = spoilt(tmp_path, with_arrays(sound, tags=lambda array: array[::-1].copy()))
    found = {check.name: check for check in verify(path, engine="onnxruntime").checks}
    assert "a look-up does not find" in found["vocabularies"].words
    assert not found["vocabularies"].ok


def test_files_of_any_bytes_are_read_or_refused(tmp_path: Path, sound: mutations.Files) -> None:
    rng, words = np.random.default_rng(0), []
    for turn in range(150):
        data = bytearray(sound[FILE])
        for place in rng.integers(0, len(data) if turn % 2 else 700, 1 + turn % 4):
            data[place] = rng.integers(0, 256)
        cut = len(data) if turn % 5 else int(rng.integers(0, len(data)))
        folder = tmp_path / str(turn)
        folder.mkdir()
        path = spoilt(folder, {**sound, FILE: bytes(data[:cut])})
        try:
            found = read_bundle(path).vocabularies
        except BundleError as error:
            words.append(str(error))
            continue
        for one in found.values():
            assert one.ids_of(SKUS).max() < tiny_models.ITEMS
            one.lost()
    assert words
    assert not any("\n" in one for one in words)


def test_manifest_and_file_must_agree(tmp_path: Path, sound: mutations.Files) -> None:
    def changed(change: Any) -> mutations.Files:
        manifest = json.loads(sound["manifest.json"])
        change(manifest)
        return {**sound, "manifest.json": mutations.canonical(manifest)}

    cases = [
        (lambda m: m.pop("vocabularies"), "vocabularies are there and .* is not, or the reverse"),
        (lambda m: m["vocabularies"].update(price={"values": 3, "seed": 0}), "'price', which is no input of ids"),
        (lambda m: m["vocabularies"].pop("user_id"), "holds the array 'user_id.buckets'"),
        (lambda m: m["vocabularies"]["user_id"].update(values=19), "has 20 ids, 21 starts"),
        (lambda m: m["vocabularies"]["user_id"].update(sed=1), "the nearest known is 'seed'"),
    ]
    for place, (change, words) in enumerate(cases):
        folder = tmp_path / str(place)
        folder.mkdir()
        with pytest.raises(BundleError, match=words):
            read_bundle(spoilt(folder, changed(change)))
