"""The compiled engine keeps the contract of the others. Compiling takes seconds, so few models are."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from exportable import Ranker, ranker_batch
from hoisted_file import INDEX, ITEM, USER, expected, write_hoisted

from flyweight.engines import packages
from flyweight.engines.export import export_onnx
from flyweight.engines.registry import find_engine
from flyweight.errors import EngineError, InputError

COMPILES = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))


def test_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert find_engine("inductor").available() == (
        "inductor: no-such-compiler is not installed, with which it compiles: apt install g++, or set CXX to a compiler"
    )


@COMPILES
def test_compiled_model_keeps_the_contract(tmp_path: Path) -> None:
    prepared = find_engine("inductor").prepare(write_hoisted(tmp_path), threads=1)
    assert prepared.input_names == ("user", "item")
    for rows in (5, 1, 0):
        scores = prepared.run({"user": USER[:1], "item": ITEM[:rows]})
        np.testing.assert_allclose(scores, expected(USER[:1], ITEM[:rows], np.zeros(rows, np.int64)), rtol=1e-5)
    with pytest.raises(InputError, match="'item' has dtype <U32; the model takes float32"):
        prepared.run({"user": USER[:1], "item": ITEM.astype(str)})
    prepared.close()
    with pytest.raises(EngineError, match="inductor: the model is closed"):
        prepared.run({"user": USER[:1], "item": ITEM})


@COMPILES
@pytest.mark.slow
def test_several_requests_are_compiled_when_first_given(tmp_path: Path) -> None:
    prepared = find_engine("inductor").prepare(write_hoisted(tmp_path), threads=1)
    for requests, index in ((3, INDEX), (1, np.zeros(5, np.int64)), (3, np.arange(1000) % 3), (2, np.array([1]))):
        given = {"user": USER[:requests], "item": np.resize(ITEM, (max(len(index), 5), 4)), "request_index": index}
        due = expected(USER, given["item"], np.resize(index, len(given["item"])))
        np.testing.assert_allclose(prepared.run(given), due, rtol=1e-5, atol=1e-5)


@COMPILES
@pytest.mark.slow
def test_compiled_model_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start loads it: no compiler runs, and bfloat16 scores are near float32's, not equal."""
    torch.manual_seed(0)
    model = Ranker().eval()
    exported = export_onnx(model, ranker_batch(6), tmp_path)
    find_engine("inductor-bf16").prepare(exported.path, threads=1)
    monkeypatch.setattr(packages, "quietly", None)  # only building needs it
    begin = time.perf_counter()
    prepared = find_engine("inductor-bf16").prepare(exported.path, threads=1)
    assert time.perf_counter() - begin < 1.0
    batch = ranker_batch(30)
    with torch.no_grad():
        due = model(**batch).numpy()
    seen = prepared.run({name: value.numpy() for name, value in batch.items()})
    apart = np.abs(seen - due).max() / np.median(np.abs(due))
    assert 1e-6 < apart < 2**-5
