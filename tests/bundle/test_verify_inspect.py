"""A bundle proves itself, or says what is wrong; and shows its numbers in the shape the design fixes."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from flyweight.bundle.inspect import inspect
from flyweight.bundle.verify import Verification, verify
from flyweight.bundle.write import write_bundle
from flyweight.errors import BundleError, InputError


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    return write_bundle(folder / "ranker.fly", tiny_models.contents(folder / "e"))


def failed(verification: Verification) -> list[str]:
    return [f"{check.name}: {check.words}" for check in verification.checks if not check.ok]


def test_sound_bundle_verifies_in_every_engine_here(path: Path) -> None:
    verification = verify(path)
    assert verification.ok, str(verification)
    assert any(check.name == "scores in onnxruntime" and "9 rows" in check.words for check in verification.checks)
    assert "verified" in str(verification)


def test_scores_that_are_off_fail_in_words(tmp_path: Path) -> None:
    contents = tiny_models.contents(tmp_path / "e")
    off = [dataclasses.replace(one, scores=one.scores * np.float32(1.01)) for one in contents.samples]
    path = write_bundle(tmp_path / "r.fly", dataclasses.replace(contents, samples=off))
    verification = verify(path, engine="onnxruntime")
    assert not verification.ok
    assert any("scores in onnxruntime" in words and "largest difference" in words for words in failed(verification))
    assert "NOT verified" in str(verification)


def test_altered_bundle_fails_with_the_readers_words(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "r.fly", tiny_models.contents(tmp_path / "e"))
    (path / "report.html").write_text("<!doctype html><title>TINY</title>")
    assert any("report.html hashes to" in words for words in failed(verify(path)))


def test_size_that_is_not_on_disk_fails(tmp_path: Path) -> None:
    contents = tiny_models.contents(tmp_path / "e")
    evidence = tiny_models.evidence(10)
    path = write_bundle(tmp_path / "r.fly", dataclasses.replace(contents, evidence=evidence))
    assert any(words.startswith("size: ") and "the manifest says 10" in words for words in failed(verify(path)))


def test_bundle_without_samples_is_not_verified(tmp_path: Path) -> None:
    contents = dataclasses.replace(tiny_models.contents(tmp_path / "e"), samples=[])
    path = write_bundle(tmp_path / "r.fly", contents)
    assert any("no stored requests" in words for words in failed(verify(path, engine="onnxruntime")))


def test_unknown_engine_is_the_callers_error(path: Path) -> None:
    with pytest.raises(InputError, match="abacus"):
        verify(path, engine="abacus")


def test_inspect_has_the_shape_of_the_design(path: Path) -> None:
    shown = json.loads(json.dumps(inspect(path), allow_nan=False))
    for side in ("before", "after"):
        assert {"bytes", "table_bytes", "macs", "quality"} <= shown[side].keys()
        assert shown[side]["quality"].keys() == {"value", "low", "high", "n"}
        assert {"p50", "p95", "p99"} <= shown["latency_ms"][side].keys()
    assert shown["drop"].keys() == {"value", "low", "high", "n", "confidence", "certified"}
    assert shown["drop"]["certified"] is True
    assert shown["engine"] == "onnxruntime"
    assert shown["skipped"] == [{"what": "user", "why": "20 rows: too few to pay", "step": "encode_tables"}]
    assert shown["files"]["model.onnx"] == (path / "model.onnx").stat().st_size
    assert {"guards", "tables", "recipe", "hardware", "format", "curve"} <= shown.keys()


def test_inspect_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="it is not a bundle"):
        inspect(tmp_path)
