"""The engine that is taken: the quickest exact one, or one that rounds where that is surely quicker and harmless."""

import pytest

from flyweight.errors import EngineError
from flyweight.planning.clock import quickest
from flyweight.task.measurement import Latency


def latency(p50: float, width: float = 0.01) -> Latency:
    return Latency(p50, p50, p50, p50 - width, p50 + width, repeats=100, candidates=500, threads=1)


def never(exact: str, rounding: str) -> bool:
    raise AssertionError("quality was asked without need")


def test_the_quickest_exact_engine_needs_no_judgement() -> None:
    times = {"onnxruntime": latency(1.0), "openvino": latency(2.0), "openvino-bf16": latency(3.0)}
    assert quickest(times, never) == ("onnxruntime", None)


def test_rounding_that_may_only_seem_quicker_is_left() -> None:
    assert quickest({"openvino": latency(1.0), "openvino-bf16": latency(0.99)}, never) == ("openvino", None)


def test_rounding_is_taken_where_quality_bears_it() -> None:
    times = {"onnxruntime": latency(1.2), "openvino": latency(1.0), "openvino-bf16": latency(0.5)}
    asked: list[tuple[str, str]] = []
    assert quickest(times, lambda *pair: not asked.append(pair)) == ("openvino-bf16", None)
    assert asked == [("openvino", "openvino-bf16")]


def test_rounding_that_costs_too_much_is_left_out_with_the_reason() -> None:
    engine, why = quickest({"openvino": latency(1.0), "openvino-bf16": latency(0.5)}, lambda exact, rounding: False)
    assert engine == "openvino"
    assert why is not None
    assert (why.engine, "takes too much of the margin" in why.why) == ("openvino-bf16", True)


def test_rounding_alone_is_no_choice() -> None:
    with pytest.raises(EngineError, match=r"Only engines that round .* openvino-bf16"):
        quickest({"openvino-bf16": latency(0.5)}, never)
