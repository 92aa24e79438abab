"""A floor is a division: what is done by what the machine can do. Limits here are round numbers."""

from pathlib import Path

import numpy as np
import pytest
from few_nodes import F32, floats, model_file
from onnx import helper

from flyweight.cost.bandwidth import Level
from flyweight.cost.limits import Limits, machine_limits
from flyweight.cost.overhead import Overhead
from flyweight.cost.peak import Peak
from flyweight.cost.roofline import hold_against, roofline
from flyweight.cost.work import OperatorWork, Work
from flyweight.errors import InputError

LIMITS = Limits(
    1,
    (Level("L2", 10**6, 100e9, 90e9, 80e9), Level("L3", 10**7, 50e9, 50e9, 50e9), Level("memory", 0, 10e9, 8e9, 5e9)),
    (Peak("float32", 100e9, "a"), Peak("int8", 400e9, "b")),
    Overhead(call=10e-6, operator=1e-6),
    {"bfloat16": "no engine multiplies in it"},
)


def work(weights: int = 0, moved: int = 0, macs: int = 0, precision: str = "float32", operators: int = 1) -> Work:
    first = OperatorWork("n", "MatMul", weights, 0, moved, 0, 0, macs, precision, joined=False)
    rest = (OperatorWork("r", "Relu", 0, 0, 0, 0, 0, 0, "", joined=False),) * (operators - 1)
    return Work((first, *rest), ())


def test_memory_binds_where_bytes_take_longest() -> None:
    held = hold_against(work(weights=10**9, macs=10**6), LIMITS, latency_ms=200.0)
    assert held.memory_ms == pytest.approx(100.0)  # 1 GB at 10 GB/s
    assert (held.binds, held.level) == ("memory", "memory")
    assert held.fraction == pytest.approx(0.5)
    words = "200 ms; the floor is 100 ms, bound by memory (1,000 MB, weights from memory): 50% of the limit."
    assert held.words == words


def test_compute_binds_and_is_faster_in_int8() -> None:
    full = hold_against(work(weights=1000, macs=10**9), LIMITS)
    small = hold_against(work(weights=1000, macs=10**9, precision="int8"), LIMITS)
    assert (full.compute_ms, small.compute_ms) == (pytest.approx(20.0), pytest.approx(5.0))  # 2 operations each
    assert full.binds == "compute"
    assert full.fraction is None
    assert "float32" in full.words


def test_overhead_binds_where_little_is_done() -> None:
    held = hold_against(work(weights=100, macs=100, operators=20), LIMITS, latency_ms=0.06)
    assert held.overhead_ms == pytest.approx(0.03)  # 10 us a call + 20 x 1 us
    assert held.binds == "overhead"
    assert "20 operators to start): 50% of the limit" in held.words
    assert hold_against(work(operators=20), LIMITS, operators=5).overhead_ms == pytest.approx(0.015)


@pytest.mark.parametrize(
    ("weights", "level", "rate"), [(10**6, "L2", 100e9), (10**7, "L3", 50e9), (10**8, "memory", 10e9)]
)
def test_weights_come_from_the_nearest_level_that_holds_them(weights: int, level: str, rate: float) -> None:
    held = hold_against(work(weights=weights), LIMITS)
    assert held.level == level
    assert held.memory_ms == pytest.approx(1e3 * weights / rate)


def test_activations_may_lie_nearer_than_weights() -> None:
    held = hold_against(work(weights=10**8, moved=10**6), LIMITS)
    assert held.memory_ms == pytest.approx(10.0 + 0.01)


def test_precision_without_a_peak_is_named_and_not_guessed() -> None:
    held = hold_against(work(macs=10**9, precision="bfloat16"), LIMITS)
    assert held.compute_ms == 0.0
    (skipped,) = held.skipped
    assert "bfloat16" in skipped.what
    assert skipped.why == "no engine multiplies in it"


def test_call_below_the_floor_says_so() -> None:
    assert "does less than the file asks for" in hold_against(work(macs=10**9), LIMITS, latency_ms=10.0).words


@pytest.mark.parametrize("latency", [0.0, -1.0, float("nan")])
def test_latency_that_cannot_be_is_refused(tmp_path: Path, latency: float) -> None:
    path = model_file(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], {"x": (F32, ["rows"])})
    with pytest.raises(InputError, match="above 0 ms"):
        roofline(path, {"x": floats(2)}, LIMITS, latency_ms=latency)


def test_floor_grows_with_rows(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = model_file(tmp_path, [node], {"x": (F32, ["rows", 64])}, {"w": floats(64, 64)})
    floors = [roofline(path, {"x": floats(rows, 64)}, LIMITS) for rows in (1, 100, 10_000)]
    assert floors[0].floor_ms <= floors[1].floor_ms < floors[2].floor_ms
    assert floors[0].intensity < floors[2].intensity  # weights are shared by more rows


def test_large_product_in_onnx_runtime_is_near_its_measured_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way on this machine: what the peak was measured with reaches most of the peak."""
    import time

    import onnxruntime

    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path))
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = model_file(tmp_path, [node], {"x": (F32, ["rows", 512])}, {"w": floats(512, 512)})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {"x": np.ones((512, 512), np.float32)}
    limits = machine_limits(threads=1)
    best = float("inf")
    for _ in range(15):
        start = time.perf_counter()
        session.run(None, given)
        best = min(best, time.perf_counter() - start)
    held = roofline(path, given, limits, latency_ms=1e3 * best)
    assert held.binds == "compute"
    assert held.fraction is not None
    assert 0.2 < held.fraction < 1.5
