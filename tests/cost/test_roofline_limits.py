"""Limits of a machine: finite, kept, and measured again when what was kept is damaged."""

import builtins
import json
import math
from pathlib import Path
from typing import Any

import pytest

from flyweight.cost import limits as limits_file
from flyweight.cost.bandwidth import Level, measure_bandwidth
from flyweight.cost.caches import TYPICAL, find_caches
from flyweight.cost.limits import Limits, as_data, best_of, from_data, machine_limits
from flyweight.cost.overhead import Overhead, measure_overhead
from flyweight.cost.peak import Peak, measure_peaks
from flyweight.errors import InputError

EXAMPLE = Limits(
    1,
    (Level("L2", 1 << 20, 90e9, 80e9, 70e9), Level("memory", 0, 20e9, 25e9, 30e9)),
    (Peak("float32", 100e9, "onnxruntime"),),
    Overhead(5e-6, 1e-6),
    {"int8": "no engine"},
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Count measurements, each of which takes no time, and keep them in a folder of the test's own."""
    calls: list[int] = []
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(limits_file, "measure_bandwidth", lambda threads: calls.append(threads) or EXAMPLE.levels)
    monkeypatch.setattr(limits_file, "measure_peaks", lambda threads: (EXAMPLE.peaks, EXAMPLE.unknown))
    monkeypatch.setattr(limits_file, "measure_overhead", lambda: EXAMPLE.overhead)
    return calls


def test_bandwidth_is_positive_finite_and_no_faster_from_memory_than_near() -> None:
    levels = measure_bandwidth(seconds=0.6)
    rates = [rate for level in levels for rate in (level.read, level.copy, level.add)]
    assert all(math.isfinite(rate) and 1e8 < rate < 1e13 for rate in rates)
    assert levels[-1].name == "memory"
    assert max(level.rate for level in levels[:-1]) > 0.8 * levels[-1].rate


def test_two_threads_hold_two_private_caches() -> None:
    caches = find_caches()
    near = next(level for level in measure_bandwidth(threads=2, seconds=0.3) if level.name == caches[0].name)
    assert near.holds == caches[0].holds(2)


def test_int8_products_are_counted_as_operations_of_their_engine() -> None:
    peaks, unknown = measure_peaks(sizes=(128,), repeats=3)
    by_precision = {one.precision: one for one in peaks}
    assert {"float32", "int8"} <= set(by_precision)
    assert all(1e8 < one.rate < 1e15 and one.engine for one in peaks)
    assert not set(by_precision) & set(unknown)


def test_without_torch_and_openvino_bfloat16_is_unknown_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name in ("torch", "openvino"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    peaks, unknown = measure_peaks(sizes=(64,), repeats=1)
    assert {one.precision: one.engine for one in peaks} == {"float32": "onnxruntime", "int8": "onnxruntime"}
    assert unknown == {"bfloat16": "torch is not installed; openvino is not installed"}


def test_operator_overhead_is_less_than_a_call() -> None:
    overhead = measure_overhead(repeats=50)
    assert 0 < overhead.operator < overhead.call < 1e-2
    assert overhead.seconds(20) == pytest.approx(overhead.call + 20 * overhead.operator)


def test_limits_are_measured_once_and_kept(measured: list[int]) -> None:
    assert machine_limits() == machine_limits() == EXAMPLE
    assert measured == [1]
    machine_limits(again=True)
    assert measured == [1, 1]


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 1}',
        json.dumps({**as_data(EXAMPLE), "version": 0}),
        json.dumps({**as_data(EXAMPLE), "levels": [{"name": "L2", "holds": 1, "read": -1, "copy": 1, "add": 1}]}),
        json.dumps({**as_data(EXAMPLE), "peaks": [{"precision": "float32", "rate": "fast", "engine": "x"}]}),
        json.dumps(as_data(EXAMPLE)).replace("90000000000.0", "NaN"),
        json.dumps({**as_data(EXAMPLE), "threads": 7}),
    ],
)
def test_damaged_limits_are_measured_again(measured: list[int], damage: str) -> None:
    machine_limits()
    (kept,) = limits_file.limits_folder().glob("*.json")
    kept.write_text(damage)
    assert machine_limits() == EXAMPLE
    assert measured == [1, 1]
    assert from_data(json.loads(kept.read_text())) == EXAMPLE  # and put right


def test_binary_rubbish_is_measured_again(measured: list[int]) -> None:
    machine_limits()
    (kept,) = limits_file.limits_folder().glob("*.json")
    kept.write_bytes(bytes(range(256)))
    assert machine_limits() == EXAMPLE
    assert measured == [1, 1]


def test_folder_that_cannot_be_written_is_a_warning(measured: list[int], tmp_path: Path) -> None:
    limits_file.limits_folder().write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="FLYWEIGHT_CACHE"):
        assert machine_limits() == EXAMPLE


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(threads: int) -> None:
    with pytest.raises(InputError, match="threads"):
        measure_bandwidth(threads=threads)
    with pytest.raises(InputError, match="threads"):
        measure_peaks(threads=threads)


def test_caches_are_typical_where_the_system_is_silent(tmp_path: Path) -> None:
    assert find_caches(tmp_path) == TYPICAL


def test_caches_are_read_as_the_system_writes_them(tmp_path: Path) -> None:
    for place, (level, kind, size, cores) in enumerate(
        [("1", "Data", "32K", "0"), ("2", "Unified", "1024K", "0,4"), ("3", "Unified", "32M", "0-7")]
    ):
        folder = tmp_path / f"index{place}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", cores)):
            (folder / name).write_text(text + "\n")
    near, far = find_caches(tmp_path)
    assert (near.name, near.bytes, near.shared) == ("L2", 1 << 20, 2)
    assert (far.name, far.holds(8), far.holds(9)) == ("L3", 32 << 20, 64 << 20)


def test_best_of_two_takes_the_higher_rate_and_the_lower_overhead() -> None:
    levels = (Level("L2", 1 << 20, 50e9, 95e9, 60e9), Level("memory", 0, 21e9, 20e9, 20e9))
    peaks = (Peak("float32", 90e9, "torch"), Peak("int8", 400e9, "torch"))
    best = best_of(EXAMPLE, Limits(1, levels, peaks, Overhead(6e-6, 0.5e-6), {}))
    assert best.levels == (Level("L2", 1 << 20, 90e9, 95e9, 70e9), Level("memory", 0, 21e9, 25e9, 30e9))
    assert best.peaks == (Peak("float32", 100e9, "onnxruntime"), Peak("int8", 400e9, "torch"))
    assert (best.overhead, best.unknown) == (Overhead(5e-6, 0.5e-6), {})


def test_best_of_two_thread_counts_is_refused() -> None:
    with pytest.raises(InputError, match="1 and 2 threads"):
        best_of(EXAMPLE, Limits(2, EXAMPLE.levels, EXAMPLE.peaks, EXAMPLE.overhead, {}))
