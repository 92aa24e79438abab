"""A request's way through the service, whatever protocol it came by: version, call, its turn in the queue, scores."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import FlyweightError
from flyweight.serving.call import Call, fitted_call
from flyweight.serving.caller import Caller
from flyweight.serving.lane import Lane, Ticket
from flyweight.serving.refusal import Refusal, refusal_of, shown
from flyweight.serving.repository import Repository
from flyweight.serving.served import Served
from flyweight.serving.tensors import Tensors


@dataclass(slots=True)
class Answered:
    """What became of a request, for whoever counts, logs or compares.

    Args:
        protocol: "http", "grpc" or "rank".
        model, version: that were asked for; the version is the one that answered once that is known.
        request_id: the caller's own name for the request, or one that was made.
        traceparent: the trace that it belongs to; "" where there is none.
        candidates: how many it had, 0 where that was not found out.
        kind: of the refusal; "" where it was answered.
        before_seconds, queue_seconds, engine_seconds, seconds: before it waited, waiting, in the engine (with those
            joined to it), in all.
        batch: how many requests were scored together.
        served: the version that answered, None where none did.
        tensors, scores: what came and went out, for comparing; None where there were none.
    """

    protocol: str
    model: str
    version: str = ""
    request_id: str = ""
    traceparent: str = ""
    candidates: int = 0
    kind: str = ""
    before_seconds: float = 0.0
    queue_seconds: float = 0.0
    engine_seconds: float = 0.0
    seconds: float = 0.0
    batch: int = 0
    served: Served | None = None
    tensors: Tensors | None = None
    scores: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Handed:
    """A request in a queue.

    Args:
        told: what is known of it so far.
        arrived: `time.perf_counter()` when it was handed in.
        call: what is scored.
        ticket: its place in the queue.
    """

    told: Answered
    arrived: float
    call: Call
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Shut:
    """Queues that take no more, for as long as nothing has left one of them.

    Finding that out anew for each request that is refused took as long as all else about it.

    Args:
        lanes: with their turns.
        until: `time.monotonic()` when it is looked at again in any case: which queues there are may change.
        refusal: why.
    """

    lanes: tuple[tuple[Lane, int], ...]
    until: float
    refusal: Refusal

    def holds(self) -> bool:
        """Return whether it is so still."""
        for lane, turn in self.lanes:
            if lane.turn != turn:
                return False
        return time.monotonic() < self.until


#: Seconds after which full queues are looked at again.
SHUT_SECONDS = 0.005
Watcher = Callable[[Answered], None]


@dataclass
class Desk:
    """Where requests of every protocol are handed in.

    Args:
        repository: the models.
        watchers: called after each request, on the event loop's thread, before the answer is written: be quick.
        tally: counts a request that was refused by its head, by protocol, model and kind; None where the watchers are
            to see such ones too.
    """

    repository: Repository
    watchers: list[Watcher] = field(default_factory=list)
    tally: Callable[[str, str, str], None] | None = None
    _shut: dict[tuple[str, str | None], Shut] = field(default_factory=dict)

    async def answer(
        self, protocol: str, model: str, version: str | None, tensors: Tensors, caller: Caller | None = None
    ) -> Answered:
        """Return the scores of a request, with what became of it on its way.

        Raises:
            Refusal: it has none; says why.
        """
        handed = self.hand_in(protocol, (model, version), tensors, caller or Caller())
        await handed.ticket.answer
        return self.take_back(handed)

    def hand_in(self, protocol: str, target: tuple[str, str | None], tensors: Tensors, caller: Caller) -> "Handed":
        """Put a request into the queue of the version that answers it; once its ticket has its answer, `take_back`.

        Raises:
            Refusal: it is not taken; says why.
        """
        model, version = target
        told = Answered(protocol, model, version or "", caller.named(tensors.id), caller.traceparent, tensors=tensors)
        arrived = time.perf_counter()
        try:
            served = self.repository.answerer(model, version, tensors.inputs)
            told.served, told.version = served, served.version
            call = fitted_call(served.opened.takes, tensors)
            told.candidates = call.rows
            ticket = served.lane.submit(call, _seconds_allowed(tensors))
        except Refusal as refusal:
            self._note(told, arrived, refusal)
            raise
        return Handed(told, arrived, call, ticket)

    def take_back(self, handed: "Handed") -> Answered:
        """Return a request with its scores.

        Raises:
            Refusal: it has none; says why.
        """
        told, ticket = handed.told, handed.ticket
        outcome = ticket.answer.result()
        told.batch = ticket.batch
        if ticket.batch:
            told.before_seconds = ticket.arrived - handed.arrived
            told.queue_seconds, told.engine_seconds = ticket.started - ticket.arrived, ticket.ended - ticket.started
        if isinstance(outcome, FlyweightError):
            refusal: Refusal | None = refusal_of(outcome)
        else:
            refusal = _why_not_finite(outcome)
            told.scores = None if refusal is not None else outcome
        self._note(told, handed.arrived, refusal)
        if refusal is not None:
            raise refusal
        self._compare(handed)
        return told

    def _note(self, told: Answered, arrived: float, refusal: Refusal | None) -> None:
        told.seconds = time.perf_counter() - arrived
        if refusal is not None:
            told.kind = refusal.kind
        for watcher in self.watchers:
            watcher(told)

    def _compare(self, handed: "Handed") -> None:
        """Hand a call that was answered to the shadow, where there is one."""
        told, served = handed.told, handed.told.served
        entry = self.repository.models.get(told.model)
        if entry is not None and entry.shadowing is not None and served is not None:
            assert told.scores is not None
            if served.version == entry.answering:
                entry.shadowing.offer(handed.call, told.scores, served.lane)

    def early_refusal(self, model: str, version: str | None = None, *, expects: bool = True) -> Refusal | None:
        """Return why any request of a model, or of its version, would be refused now, whatever is in it; None where it
        would not.

        A busy service must not spend its time on reading requests that it cannot take.

        Args:
            expects: whether a request that is let in is read later, so that those after it are to count it.
        """
        refusal = self.full(model, version, expects=expects)
        if refusal is None:
            return None
        if self.tally is not None:
            self.tally("http", model, refusal.kind)
        else:
            self.refuse("http", model, refusal, Caller())
        return refusal

    def full(self, model: str, version: str | None, *, expects: bool = False) -> Refusal | None:
        """Return why no queue that a request may go to takes one more, None where one does."""
        shut = self._shut.get((model, version))
        if shut is not None and shut.holds():
            return shut.refusal
        entry = self.repository.models.get(model)
        lanes = [] if entry is None else [served.lane for served in entry.may_answer(version)]
        refusal: Refusal | None = None
        for lane in lanes:
            refusal = lane.refusal(lane.limits.deadline_ms / 1e3)
            if refusal is None:
                if expects:
                    lane.expect()
                return None
        if refusal is not None:
            until = time.monotonic() + SHUT_SECONDS
            self._shut[model, version] = Shut(tuple((lane, lane.turn) for lane in lanes), until, refusal)
        return refusal

    def refuse(self, protocol: str, model: str, refusal: Refusal, caller: Caller) -> None:
        """Tell those who watch of a request that was refused before it could be handed in."""
        told = Answered(protocol, model, "", caller.named(), caller.traceparent, kind=refusal.kind)
        for watcher in self.watchers:
            watcher(told)


def _seconds_allowed(tensors: Tensors) -> float | None:
    """Return how long a request may wait: its parameter `timeout`, in microseconds, as Triton's clients send it."""
    timeout = tensors.parameters.get("timeout")
    if timeout is None or timeout == 0:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise Refusal(f"Parameter timeout must be microseconds, a whole number; seen {shown(timeout)}.")
    return max(float(timeout) / 1e6, LEAST_SECONDS)


def _why_not_finite(scores: NDArray[Any]) -> Refusal | None:
    """Return why scores cannot be ranked, None where they can: JSON has no word for NaN, and it has no place in an
    order. A score is infinite or NaN where numbers of a request are finite and yet too large.
    """
    if math.isfinite(np.vdot(scores, scores)):  # a tenth of the time of looking at each
        return None
    finite = np.isfinite(scores)
    if finite.all():
        return None
    row = int((~finite.reshape(len(scores), -1)).any(1).argmax())
    return Refusal(
        f"The score of candidate {row} is {np.ravel(scores[row])[0]}: numbers of the request are larger than the "
        "model can count with. Give numbers of the size that it was trained with."
    )


#: What a request may wait at least: with less it would not outlast the way to the engine of an idle service.
LEAST_SECONDS = 1e-3
