"""Plain advice: when not to compress, and what first, for models of every kind."""

from dataclasses import replace

import pytest

from flyweight.cost.roofline import Roofline
from flyweight.engines.operator_times import OperatorTimes
from flyweight.engines.timed_operator import TimedOperator
from flyweight.planning.advice import Situation, give_advice
from flyweight.planning.bound import Bound, find_bound
from flyweight.planning.gain import ESTIMATED, Gain
from flyweight.planning.repeated import Repeated
from flyweight.planning.timed_forms import Timed
from flyweight.tables.table_use import TableUse
from flyweight.task.measurement import Latency
from flyweight.task.span import Span

COMPUTE = Bound("compute", ())
MOSTLY_ONCE = TableUse("items", 1_000_000, 16, 64_000_000, 2_000_000, never=0.1, once=0.6)
REPEATED = Repeated(row=100, request_only=0, once=60, candidate=40, done=(), refused=(), undone=())


def took(ms: float) -> Latency:
    return Latency(ms, ms, ms, ms, ms, repeats=9, candidates=500, threads=1)


def timed(**ms: float) -> Timed:
    names = {"once": "onnxruntime, rewritten"}
    return Timed({names.get(name, name): took(value) for name, value in ms.items()}, {}, {})


def seen(**given: object) -> Situation:
    plain = {"eager": 9.0, "onnxruntime": 2.0}
    default = Situation(70_000_000, 64_000_000, (MOSTLY_ONCE,), None, timed(**plain), COMPUTE, ())
    return replace(default, **given)


def test_a_small_quick_model_is_left_alone() -> None:
    small = seen(bytes=3_400_000, table_bytes=3_300_000, timed=timed(eager=0.4, onnxruntime=0.2))
    assert give_advice(small) == ("Do not compress this: it is 3.4 MB and 0.20 ms a request.",)


def test_a_small_quick_model_is_told_what_hoisting_still_gains() -> None:
    small = seen(bytes=10_000, repeated=REPEATED, timed=timed(eager=0.4, onnxruntime=0.2, once=0.1))
    first, second = give_advice(small)
    assert first.startswith("Do not compress this: it is 0.0 MB and 0.20 ms")
    assert second.startswith("Each request worked out once still gains: 0.10 ms instead of 0.20 ms. compress(task, st")
    assert len(give_advice(replace(small, timed=timed(eager=0.4, onnxruntime=0.2, once=0.2)))) == 1


def test_large_tables_come_first_with_what_to_expect_of_them() -> None:
    gain = Gain("EncodeTables(max_drop=0.001)", Span(7e5, 1e6, 1.4e6), None, ESTIMATED, "")
    first, second, third = give_advice(seen(gains=(gain,)))
    assert first == (
        "91% of the bytes are in embedding tables: EncodeTables first, the model 50x to 100x smaller within a drop of "
        "0.001."
    )
    assert second == "70% of the tables' bytes are rows that training saw once or never: they need few bits."
    assert third.startswith("The products bind: Factorize or Prune")


def test_codes_that_take_longer_to_unpack_than_all_the_rest_are_told_of() -> None:
    gain = Gain("EncodeTables(max_drop=0.001)", Span(7e5, 1e6, 1.4e6), Span(1.9, 2.5, 3.5), ESTIMATED, "")
    assert "Unpacking codes may cost time: up to 3.50 ms a request instead of 2.00 ms." in give_advice(
        seen(gains=(gain,))
    )
    little = replace(gain, ms=Span(1.9, 2.1, 2.3))
    assert not [one for one in give_advice(seen(gains=(little,))) if one.startswith("Unpacking")]


def test_a_model_without_tables_is_not_sent_to_encode_them() -> None:
    (first, _) = give_advice(seen(bytes=40_000_000, table_bytes=0, tables=()))
    assert first == (
        "No embedding tables: EncodeTables has nothing to do. Quantize makes the layers a quarter as large."
    )
    (first, _) = give_advice(seen(bytes=300_000, table_bytes=0, tables=()))
    assert first == "No embedding tables, and 300.0 kB are few: what there is to gain here is time."


def test_where_hoisting_is_everything_it_is_said() -> None:
    *_, hoisting, _ = give_advice(seen(repeated=REPEATED, timed=timed(eager=9.0, onnxruntime=2.0, once=0.5)))
    assert "the request's: worked out once, a request takes 0.50 ms instead of 2.00 ms. compress(task, st" in hoisting
    *_, hoisting, _ = give_advice(seen(repeated=REPEATED, timed=timed(eager=9.0, onnxruntime=2.0, once=1.5)))
    assert hoisting == "60% of each candidate's work is the request's: compress() exports it computed once."


@pytest.mark.parametrize(
    ("binds", "words"), [("overhead", "Starting operators binds"), ("memory", "Moving bytes binds")]
)
def test_what_binds_decides_what_helps(binds: str, words: str) -> None:
    assert give_advice(seen(bound=Bound(binds, ())))[-1].startswith(words)


def test_a_large_model_that_is_quick_is_not_made_quicker() -> None:
    assert give_advice(seen(timed=timed(eager=0.5, onnxruntime=0.2)))[-1] == (
        "At 0.20 ms a request, time is no reason to compress it."
    )


def limit(latency: float, memory: float, compute: float, overhead: float) -> Roofline:
    return Roofline(latency, memory, compute, overhead, "L2", 2_000_000, {"float32": 10**9}, 20, 1, ())


def operators(count: int, each: float, kind: str = "Gemm") -> OperatorTimes:
    return OperatorTimes("onnxruntime", 1, 9, tuple(TimedOperator(f"n{i}", kind, (), each) for i in range(count)))


@pytest.mark.parametrize(
    ("floors", "binds"), [((0.1, 0.5, 0.1), "compute"), ((0.5, 0.1, 0.1), "memory"), ((0.1, 0.1, 0.5), "overhead")]
)
def test_the_largest_floor_binds(floors: tuple[float, float, float], binds: str) -> None:
    bound = find_bound(limit(1.0, *floors), operators(4, 0.2))
    assert bound.binds == binds
    assert bound.words[0].startswith(f"{binds.capitalize()}-bound. A call of 1.00 ms needs at least 0.50 ms ")
    assert "to start 20 operators" in bound.words[0]
    assert bound.words[-1] == "Of the time in operators, products 100%."


def test_many_operators_too_small_to_fill_the_machine_are_overhead() -> None:
    bound = find_bound(limit(0.1, 0.002, 0.01, 0.008), operators(20, 0.004, "Add"))
    assert bound.binds == "overhead"
    assert bound.words[1] == "It comes nowhere near: 20 operators of 0.004 ms each are too small to fill the machine."
