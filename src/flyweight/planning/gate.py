"""Whether a step pays in the engine that will run it: the model before and after it, exported and timed in turns."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from flyweight.cost.latency import speedup, time_rounds
from flyweight.engines.choose import choose_engine
from flyweight.engines.registry import find_engine
from flyweight.planning.artefact import Artefact, make_artefact
from flyweight.planning.requests import as_arrays
from flyweight.task.estimate import Estimate
from flyweight.task.progress import stage

#: Seconds of timing for each step that must pay.
SECONDS = 3.0
#: A step is kept out when the model is surely slower, and by more than neighbours on a machine can make it look.
SLOWER = 0.97


@dataclass
class Gate:
    """Times models against each other; each is exported once.

    Args:
        samples, rows: sample requests, and rows of the first.
        request: what is timed.
        threads: of the engines.
    """

    samples: list[dict[str, Tensor]]
    rows: int
    request: dict[str, Tensor]
    threads: int
    _known: dict[int, tuple[nn.Module, Artefact]] = field(default_factory=dict)
    _folder: "tempfile.TemporaryDirectory[str]" = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="flyweight-gate-")
    )

    def pays(self, old: nn.Module, new: nn.Module, words: str) -> Estimate:
        """Return how many times faster a request is with `new` than with `old`, each in its quickest engine.

        Raises:
            ExportError, EngineError: one of them cannot be exported, or no engine gives its scores.
        """
        with stage(f"Timing what {words} gains", seconds=SECONDS + 6.0):
            return self.gain(self._artefact(old), self._artefact(new))

    def gain(self, first: Artefact, second: Artefact, seconds: float = SECONDS) -> Estimate:
        """Return how many times faster a request is with the second artefact, each in its quickest engine.

        Raises:
            EngineError: no engine gives the scores of one of them.
        """
        calls = {f"{which} {name}": call for which, one in (("old", first), ("new", second)) for name, call in
                 self._calls(one).items()}  # fmt: skip
        rounds = time_rounds(calls, candidates=self.rows, threads=self.threads, seconds=seconds)
        best = {
            which: min((name for name in calls if name.startswith(which)), key=lambda name: rounds.latency(name).p50)
            for which in ("old", "new")
        }
        return speedup(rounds, best["old"], best["new"])

    def _artefact(self, model: nn.Module) -> Artefact:
        """Export a model once; the model is kept beside it, so that its identity stays its own."""
        if id(model) not in self._known:
            folder = Path(self._folder.name, str(len(self._known)))
            self._known[id(model)] = model, make_artefact(model, self.samples, self.rows, folder)
        return self._known[id(model)][1]

    def _calls(self, artefact: Artefact) -> dict[str, Callable[[], object]]:
        path = artefact.exported.path
        choice = choose_engine(
            path, artefact.calls, artefact.reference, threads=self.threads, seconds=0.2, noise=artefact.noise
        )
        arrays = as_arrays(self.request)
        calls: dict[str, Callable[[], object]] = {}
        for name in choice.latencies:
            prepared = find_engine(name).prepare(path, self.threads)
            calls[name] = partial(prepared.run, artefact.one_call({one: arrays[one] for one in prepared.input_names}))
        return calls


def is_slower(gain: Estimate) -> bool:
    """Return whether a step makes a request slower: the whole interval lies below what chance explains."""
    return gain.value < SLOWER and gain.high < 1.0
