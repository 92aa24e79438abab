"""Writing: whole or absent, the same bytes for the same contents, and nothing of an old bundle lost."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_models
from onnx import TensorProto, helper

from flyweight.bundle.read import read_bundle
from flyweight.bundle.write import write_bundle
from flyweight.errors import BundleError, InputError

DETERMINISTIC = ("manifest.json", "model.onnx", "model.onnx.data", "samples.json")


def left_behind(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))


def test_round_trip_gives_back_what_was_written(tmp_path: Path) -> None:
    contents = tiny_models.contents(tmp_path / "export")
    bundle = read_bundle(write_bundle(tmp_path / "deep" / "ranker.fly", contents))
    assert bundle.manifest.before.quality.estimate() == tiny_models.estimate(0.91)
    assert bundle.timing.latency.after is not None
    assert bundle.timing.latency.after.latency().p95 == 0.6
    assert bundle.manifest.recipe[0].settings == {"bits_per_row": 4, "bands": [1, 2]}
    for stored, given in zip(bundle.samples, contents.samples, strict=True):
        np.testing.assert_array_equal(stored.scores, given.scores)
        assert stored.scores.dtype == given.scores.dtype
        for name, array in given.inputs.items():
            np.testing.assert_array_equal(stored.inputs[name], array)


def test_same_contents_give_identical_bytes(tmp_path: Path) -> None:
    folders = [
        write_bundle(
            tmp_path / f"{number}.fly",
            dataclasses.replace(
                tiny_models.contents(tmp_path / f"export{number}"),
                timing=tiny_models.timing().model_copy(update={"wall_seconds": number + 0.5}),
            ),
        )
        for number in range(2)
    ]
    for name in DETERMINISTIC:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert (folders[0] / "timing.json").read_bytes() != (folders[1] / "timing.json").read_bytes()


def test_json_is_canonical(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "r.fly", tiny_models.contents(tmp_path / "e"))
    for name in ("manifest.json", "timing.json", "samples.json"):
        text = (path / name).read_text()
        value = json.loads(text)
        assert text.endswith("}\n")
        assert list(value) == sorted(value)


def test_estimate_that_is_not_finite_is_stored_as_null(tmp_path: Path) -> None:
    odd = dataclasses.replace(tiny_models.estimate(0.1), high=float("inf"))
    path = write_bundle(tmp_path / "r.fly", tiny_models.contents(tmp_path / "e", drop=odd))
    assert read_bundle(path).manifest.drop.high is None


def test_existing_target_is_refused_and_kept(tmp_path: Path) -> None:
    contents = tiny_models.contents(tmp_path / "e")
    path = write_bundle(tmp_path / "r.fly", contents)
    with pytest.raises(InputError, match=r"r\.fly exists; choose another path, or overwrite it"):
        write_bundle(path, contents)
    read_bundle(path)
    assert left_behind(tmp_path) == []


def test_overwrite_replaces_the_old_bundle(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "r.fly", tiny_models.contents(tmp_path / "e"))
    write_bundle(path, tiny_models.contents(tmp_path / "e2", name="second"), overwrite=True)
    assert read_bundle(path).manifest.name == "second"
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["notes.txt", "manifest.json"], "holds 'notes.txt'"),
        ([], "lacks manifest.json"),
        (["model.onnx"], "lacks manifest.json"),
    ],
)
def test_overwrite_refuses_what_is_no_bundle(tmp_path: Path, entries: list[str], words: str) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    for name in entries:
        (target / name).write_text("mine")
    with pytest.raises(InputError, match=f"{words}, so it is no bundle and is not overwritten"):
        write_bundle(target, tiny_models.contents(tmp_path / "e"), overwrite=True)
    assert sorted(entry.name for entry in target.iterdir()) == sorted(entries)


def test_overwrite_refuses_a_file_and_a_link(tmp_path: Path) -> None:
    contents = tiny_models.contents(tmp_path / "e")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(write_bundle(tmp_path / "r.fly", contents))
    for name in ("file", "link"):
        with pytest.raises(InputError, match="exists and is no bundle"):
            write_bundle(tmp_path / name, contents, overwrite=True)


def test_full_disk_names_path_and_bytes_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = tiny_models.contents(tmp_path / "e")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InputError, match=r"The disk is full: the bundle .*r\.fly needs [0-9,]+ bytes; nothing was left"
    ):
        write_bundle(tmp_path / "r.fly", contents)
    assert not (tmp_path / "r.fly").exists()
    assert left_behind(tmp_path) == []


def test_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = tiny_models.contents(tmp_path / "e")
    calls = iter(range(100))

    def interrupted(descriptor: int) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "r.fly", contents)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["e"]


@pytest.mark.parametrize("fails_at", [1, 2])
def test_failing_rename_keeps_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    path = write_bundle(tmp_path / "r.fly", tiny_models.contents(tmp_path / "e"))
    old = (path / "manifest.json").read_bytes()
    calls: list[Any] = []
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(path, tiny_models.contents(tmp_path / "e2", name="second"), overwrite=True)
    assert (path / "manifest.json").read_bytes() == old
    assert left_behind(tmp_path) == []


def test_unwritable_parent_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_bundle(tmp_path / "file" / "r.fly", tiny_models.contents(tmp_path / "e"))


def test_missing_export_is_an_error_in_words(tmp_path: Path) -> None:
    contents = tiny_models.contents(tmp_path / "e")
    shutil.rmtree(tmp_path / "e")
    with pytest.raises(InputError, match=r"holds no model\.onnx; export the model there first"):
        write_bundle(tmp_path / "r.fly", contents)


def test_operator_that_no_bundle_may_hold_is_named_when_writing(tmp_path: Path) -> None:
    contents = tiny_models.contents(tmp_path / "e", inputs={"x": {"role": "sample", "dtype": "float32", "shape": [4]}})
    model = tiny_models.model([helper.make_node("RandomNormalLike", ["x"], ["y"], name="noise")], output=[4])
    (tmp_path / "e" / "model.onnx.data").unlink()
    onnx.save_model(model, tmp_path / "e" / "model.onnx")
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    with pytest.raises(BundleError, match=r"r\.fly/model.onnx holds the operator 'RandomNormalLike' \(node 'noise'\)"):
        write_bundle(tmp_path / "r.fly", contents)
    assert left_behind(tmp_path) == []
