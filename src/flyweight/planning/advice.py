"""What to do about a model, plainly: what to compress first, and when to leave it as it is."""

from dataclasses import dataclass

from flyweight.planning.bound import COMPUTE, MEMORY, OVERHEAD, Bound
from flyweight.planning.gain import Gain
from flyweight.planning.repeated import Repeated
from flyweight.planning.timed_forms import EAGER, Timed
from flyweight.report.words import bytes_in_words, milliseconds_in_words, ratio_in_words
from flyweight.tables.table_use import TableUse

#: A model smaller and quicker than this is left as it is.
SMALL_BYTES, SMALL_MS = 4e6, 0.3
#: A gain worth telling of in a model that is quick as it is; and one beside which others are small.
QUICKER, EVERYTHING = 0.9, 0.5
#: A loss of time worth telling of.
SLOWER = 1.5
#: Shares of the bytes, and of a candidate's work, that are worth a sentence; and of rows that are seen once at most.
MOST, WORTH, RARE = 0.5, 0.05, 0.5


@dataclass(frozen=True, eq=False)
class Situation:
    """What advice is given from.

    Args:
        bytes, table_bytes: of the model, and of its tables.
        tables: with their use.
        repeated: None where nothing is scored by request.
        timed: as it is and rewritten, in every engine.
        bound: what binds the quickest.
        gains: what each method would gain.
    """

    bytes: int
    table_bytes: int
    tables: tuple[TableUse, ...]
    repeated: Repeated | None
    timed: Timed
    bound: Bound | None
    gains: tuple[Gain, ...]

    @property
    def today_ms(self) -> float:
        """The quickest of the model as it is, eager PyTorch included."""
        best = self.timed.quickest(rewritten=False)
        return min(self.timed.latencies[name].p50 for name in (EAGER, best) if name is not None)

    @property
    def hoisted_ms(self) -> float | None:
        """Of the quickest that works each request out once, where it surely gains."""
        best = self.timed.quickest(rewritten=True)
        if self.repeated is None or best is None:
            return None
        latency = self.timed.latencies[best]
        return latency.p50 if latency.p50_high <= QUICKER * self.today_ms else None


def give_advice(seen: Situation) -> tuple[str, ...]:
    """Return what to do, the most useful first."""
    if seen.bytes < SMALL_BYTES and seen.today_ms < SMALL_MS:
        return (_leave_it(seen), *_still_quicker(seen))
    return (*_bytes(seen), *_requests(seen), *_time(seen))


def _leave_it(seen: Situation) -> str:
    return (
        f"Do not compress this: it is {seen.bytes / 1e6:.1f} MB and {milliseconds_in_words(seen.today_ms)} a request."
    )


def _still_quicker(seen: Situation) -> list[str]:
    if seen.hoisted_ms is None:
        return []
    return [
        f"Each request worked out once still gains: {milliseconds_in_words(seen.hoisted_ms)} instead of "
        f"{milliseconds_in_words(seen.today_ms)}. compress(task, steps=[]) exports it so, its numbers as they are."
    ]


def _bytes(seen: Situation) -> list[str]:
    if seen.bytes < SMALL_BYTES:
        without = "" if seen.table_bytes else "No embedding tables, and "
        return [f"{without}{bytes_in_words(seen.bytes)} are few: what there is to gain here is time."]
    if not seen.table_bytes:
        return ["No embedding tables: EncodeTables has nothing to do. Quantize makes the layers a quarter as large."]
    share = seen.table_bytes / seen.bytes
    if share <= MOST:
        return [f"{1 - share:.0%} of the bytes are in layers: Quantize and Prune first, EncodeTables for the rest."]
    advice = [f"{share:.0%} of the bytes are in embedding tables: EncodeTables first{_to_expect(seen)}."]
    rare = sum(one.bytes * ((one.never or 0.0) + (one.once or 0.0)) for one in seen.tables) / seen.table_bytes
    if rare > RARE:
        advice.append(f"{rare:.0%} of the tables' bytes are rows that training saw once or never: they need few bits.")
    return [*advice, *_decoding(seen)]


def _encoding(seen: Situation) -> Gain | None:
    return next((one for one in seen.gains if one.method.startswith("EncodeTables")), None)


def _to_expect(seen: Situation) -> str:
    gain = _encoding(seen)
    if gain is None or gain.bytes is None:
        return ""
    low, high = seen.bytes / gain.bytes.high, seen.bytes / gain.bytes.low
    return f", the model {ratio_in_words(low)} to {ratio_in_words(high)} smaller within a drop of 0.001"


def _decoding(seen: Situation) -> list[str]:
    """Say where unpacking codes may take longer than all the rest."""
    gain, best = _encoding(seen), seen.timed.quickest()
    if gain is None or gain.ms is None or best is None:
        return []
    now = seen.timed.latencies[best].p50
    if gain.ms.high <= SLOWER * now:
        return []
    then = milliseconds_in_words(gain.ms.high)
    return [f"Unpacking codes may cost time: up to {then} a request instead of {milliseconds_in_words(now)}."]


def _requests(seen: Situation) -> list[str]:
    if seen.repeated is None or seen.repeated.saved <= WORTH:
        return []
    share = f"{seen.repeated.saved:.0%} of each candidate's work is the request's"
    if seen.hoisted_ms is not None and seen.hoisted_ms < EVERYTHING * seen.today_ms:
        now, then = milliseconds_in_words(seen.today_ms), milliseconds_in_words(seen.hoisted_ms)
        return [
            f"{share}: worked out once, a request takes {then} instead of {now}. compress(task, steps=[]) does that "
            "alone, its numbers as they are; look at it before any other step for speed."
        ]
    return [f"{share}: compress() exports it computed once."]


def _time(seen: Situation) -> list[str]:
    if seen.bound is None:
        return []
    if seen.today_ms < SMALL_MS:
        return [f"At {milliseconds_in_words(seen.today_ms)} a request, time is no reason to compress it."]
    return [_BY_BOUND[seen.bound.binds]]


_BY_BOUND = {
    COMPUTE: "The products bind: Factorize or Prune, then Quantize to int8.",
    MEMORY: "Moving bytes binds: fewer bits in tables and weights help directly.",
    OVERHEAD: "Starting operators binds: fewer, larger operators help; fewer bits do not.",
}
