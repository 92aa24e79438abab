"""Kept arrays: found again, rebuilt when damaged, and never half-made."""

import numpy as np
import pytest

from flyweight.zoo.cache import cache_folder, cached_arrays, fingerprint


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Builder:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"a": np.arange(5), "tables.b.weight": np.ones((2, 3), np.float32), "scalar": np.array(2.0)}


def test_second_call_reads_what_the_first_built():
    build = Builder()
    first, second = cached_arrays("x", build), cached_arrays("x", build)
    assert build.calls == 1
    assert fingerprint(first) == fingerprint(second) == fingerprint(build())


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "a.npy").unlink(),
        lambda folder: (folder / "a.npy").write_bytes((folder / "a.npy").read_bytes()[:-3]),
        lambda folder: (folder / "a.npy").write_bytes((folder / "a.npy").read_bytes()[:-1] + b"x"),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text("[1]"),
        lambda folder: (folder / "manifest.json").unlink(),
    ],
    ids=["missing", "truncated", "altered", "not json", "not a dict", "no manifest"],
)
def test_damaged_arrays_are_built_again(cache, damage):
    build = Builder()
    cached_arrays("x", build)
    damage(cache / "x")
    assert cached_arrays("x", build)["a"].tolist() == [0, 1, 2, 3, 4]
    assert build.calls == 2
    assert cached_arrays("x", build)["a"].tolist() == [0, 1, 2, 3, 4]
    assert build.calls == 2


def test_writing_to_the_arrays_leaves_the_cache_alone():
    build = Builder()
    cached_arrays("x", build)["a"][:] = 9
    assert cached_arrays("x", build)["a"].tolist() == [0, 1, 2, 3, 4]
    assert build.calls == 1


def test_an_interrupt_leaves_nothing_behind(cache, monkeypatch):
    def interrupted(*_args, **_settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("flyweight.zoo.cache.np.save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached_arrays("x", Builder())
    assert list(cache.iterdir()) == []


def test_a_folder_that_cannot_be_written_warns_and_still_answers(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be written .* set FLYWEIGHT_CACHE"):
        assert cached_arrays("x", Builder())["a"].tolist() == [0, 1, 2, 3, 4]


def test_folder_without_the_variable_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("FLYWEIGHT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "flyweight"


def test_fingerprint_depends_on_names_types_shapes_and_values():
    sets = [{"a": np.arange(4)}, {"b": np.arange(4)}, {"a": np.arange(4, dtype=np.int32)}]
    sets += [{"a": np.arange(4).reshape(2, 2)}, {"a": np.arange(1, 5)}]
    assert len({fingerprint(one) for one in sets}) == len(sets)
