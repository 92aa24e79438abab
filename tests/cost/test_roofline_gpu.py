"""The GPU benchmark: all of it but the device runs here, on the processor and in small."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import gpu
import gpu_cases
import gpu_contenders
import gpu_limits
from flyweight.cost.limits import Limits, as_data, from_data
from flyweight.engines.export import export_onnx
from flyweight.task.field import Field
from flyweight.zoo.models.dcnv2 import DCNv2
from flyweight.zoo.models.din import DIN

REAL = pytest.mark.skipif(gpu.without_device() is not None, reason=f"needs a GPU: {gpu.without_device()}")


@pytest.fixture(scope="module")
def limits(one_thread: None) -> Limits:
    return gpu_limits.device_limits("cpu", size=64, far_bytes=1 << 20, repeats=2)


def small_interest() -> gpu_cases.Case:
    """DIN in small: a history of 6 and a user for the request, an item for the candidate."""
    torch.manual_seed(0)
    rows = {"user": 30, "item": 50}
    fields = {"history": Field("request", 50), "user": Field("request", 30), "item": Field("candidate", 50)}
    model = DIN(rows, item="item", dim=4, item_dim=8, attention=6, hidden=(8, 4)).eval()
    for table in (model.items, *model.tables.values()):  # of embeddings near zero, rounding is all that is left
        torch.nn.init.normal_(table.weight)
    return gpu_cases.Case("DIN", model, fields, {"history": 6})


def small_ranker() -> gpu_cases.Case:
    """The default ranker's model in small, of two request fields and one of the candidate."""
    torch.manual_seed(0)
    rows = {"user": 30, "hour": 24, "item": 40}
    roles = {"user": "request", "hour": "request", "item": "candidate"}
    fields = {name: Field(roles[name], rows[name]) for name in rows}
    model = DCNv2(rows, dim=4, hidden=(8, 4), init_std=1.0).eval()
    return gpu_cases.Case("ranker", model, fields, {})


def test_requests_of_a_flat_batch_are_told_by_their_index() -> None:
    request = gpu_cases.make_request(small_interest(), requests=3, candidates=5)
    assert request.arrays["history"].shape == (3, 6)
    assert request.flat["history"].shape == (15, 6)
    np.testing.assert_array_equal(request.flat["history"][5:10], np.repeat(request.arrays["history"][1:2], 5, 0))
    assert "request_index" in request.hoisted
    assert "request_index" not in gpu_cases.make_request(small_interest(), 1, 5).hoisted


def test_limits_of_a_device_are_finite_and_can_be_kept(limits: Limits) -> None:
    assert from_data(as_data(limits)) == limits
    assert {one.precision for one in limits.peaks} | set(limits.unknown) == {"float32", "bfloat16", "int8"}


@pytest.mark.parametrize(("make", "size"), [(small_ranker, (1, 7)), (small_interest, (3, 5))])
def test_contenders_are_timed_beside_eager_with_their_share_of_the_limit(
    make: type, size: tuple[int, int], limits: Limits, tmp_path: Path
) -> None:
    case = make()
    files, _ = gpu.write_files(case, tmp_path)
    rows, left_out = gpu.measure(case, files, size, limits, "cpu", repeats=3, compiled=False)
    names = [one["name"] for one in rows]
    assert {gpu_contenders.EAGER, "eager bfloat16", "original in onnxruntime", "rewritten in onnxruntime"} <= set(names)
    assert "CUDA graphs need a CUDA device" in " ".join(left_out)
    assert all(0 < one["fraction"] < np.inf and one["from_arrays"]["repeats"] == 3 for one in rows)
    by_name = {one["name"]: one for one in rows}
    eager, ours = by_name[gpu_contenders.EAGER], by_name["rewritten in onnxruntime"]
    assert sum(ours["operations"].values()) < sum(eager["operations"].values())
    assert by_name["eager bfloat16"]["operations"].keys() == {"bfloat16"}
    assert gpu.table(rows).count("\n") == len(rows) + 1


def test_contender_with_wrong_scores_is_left_out_and_says_how_far(tmp_path: Path) -> None:
    case = small_interest()
    request = gpu_cases.make_request(case, 1, 9)
    batch = {name: torch.from_numpy(value) for name, value in request.flat.items()}
    files = {gpu_contenders.ORIGINAL: export_onnx(case.model, batch, tmp_path).path}
    wrong = gpu_contenders.Contender("wrong", "original", "float32", lambda: np.arange(9.0))
    right, why = gpu._right([wrong], files, request)
    assert right == []
    assert "wrong: scores" in why[0]


@pytest.mark.skipif(gpu.without_device() is None, reason="there is a GPU")
def test_without_a_device_it_says_so_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "gpu.json")
    gpu.main([])
    assert capsys.readouterr().out.startswith("no CUDA device")
    assert list(tmp_path.iterdir()) == []


@REAL
def test_on_a_device_our_file_is_timed_on_it(tmp_path: Path) -> None:
    case = small_interest()
    files, _ = gpu.write_files(case, tmp_path)
    found = gpu_limits.device_limits("cuda", size=1024, far_bytes=1 << 26, repeats=3)
    rows, _ = gpu.measure(case, files, (2, 100), found, "cuda", repeats=5)
    timed = {one["name"] for one in rows if one["on_device"]}
    assert {gpu_contenders.EAGER, "CUDA graph float32", "rewritten in torch-cuda"} <= timed
