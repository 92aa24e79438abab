"""Where candidates are made and measured: steps done once are kept, everything is read off the exported model."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.bundle.graph import check_graph
from flyweight.bundle.manifest import DATA
from flyweight.cost.latency import time_rounds
from flyweight.distillation.checkpoint import CheckpointError
from flyweight.distillation.distill import Distill
from flyweight.engines.choose import choose_engine
from flyweight.engines.registry import find_engine
from flyweight.errors import EngineError, ExportError, InputError
from flyweight.planning.artefact import Artefact, artefact_scores, make_artefact
from flyweight.planning.certificate import LOGLOSS
from flyweight.planning.evidence import input_entries
from flyweight.planning.recalibrate import recalibrate
from flyweight.planning.requests import as_arrays
from flyweight.planning.rewriting import real_batches
from flyweight.planning.run_steps import broken
from flyweight.planning.search.least_macs import least_macs
from flyweight.planning.search.outcome import Measured
from flyweight.planning.search.run_folder import EXPORTS
from flyweight.planning.search.steady import Steady
from flyweight.pruning.factorize import Factorize
from flyweight.quality.intervals import paired_drop
from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.rules import RULES
from flyweight.tables.coded_teacher import CodedTeacher, teaching
from flyweight.tables.coder import Codings, TableCoder
from flyweight.tables.encode_tables import EncodeTables
from flyweight.tables.recalibration import recalibrates
from flyweight.tables.sizes import table_bytes
from flyweight.task.change import Change
from flyweight.task.estimate import Estimate
from flyweight.task.scores import Scores, evaluating
from flyweight.task.step import Step
from flyweight.task.task import Task

#: Seconds of timing for a trial, and resamples for its intervals where the metric has no closed form.
SECONDS, RESAMPLES = 1.5, 200
#: Models kept by the steps that made them.
MOST_KEPT = 12


@dataclass(frozen=True, eq=False)
class Made:
    """What steps made of a model: the last model, a change for each step, and inputs that it no longer takes."""

    model: nn.Module
    changes: tuple[Change, ...]

    @property
    def dropped(self) -> tuple[str, ...]:
        """Inputs that the model no longer takes."""
        return tuple(name for change in self.changes for name in change.dropped_inputs)


@dataclass(eq=False)
class Workbench:
    """Makes and measures candidates of one task.

    Args:
        task: the original and its data.
        before: the original, exported.
        samples, rows: sample requests, and rows of the first.
        request: what is timed.
        threads: of the engines.
        confidence: of intervals.
        keep: the folder that predictions are kept in, and what tells this task from others.
        codings: where it is kept what each ratio of the tables is coded as.
        turn: waits until no other process of the search looks at the clock.
    """

    task: Task
    before: Artefact
    samples: list[dict[str, Tensor]]
    rows: int
    request: dict[str, Tensor]
    threads: int
    confidence: float
    keep: "tuple[Path, str] | None" = None
    codings: Codings | None = None
    turn: Callable[[], AbstractContextManager[None]] = nullcontext
    _kept: dict[str, Made] = field(default_factory=dict)
    _coder: TableCoder | None = None
    _scores: Scores | None = None
    _teachers: dict[float, Change] = field(default_factory=dict)
    _steady: Steady = field(default_factory=Steady)

    def bare(self) -> "Workbench":
        """Return the same bench without what was made on it, small enough to be sent to another process."""
        return replace(self, _kept={}, _coder=None)

    def elsewhere(self, codings: Codings | None = None) -> "Workbench":
        """Return the same bench for a machine that does not see the folder of the search."""
        return replace(self.bare(), keep=None, codings=codings, turn=nullcontext)

    @property
    def coder(self) -> TableCoder:
        """The task's tables, weighed and encoded once."""
        if self._coder is None:
            self._coder = TableCoder(self.task, keep=self.keep, codings=self.codings)
        return self._coder

    @property
    def original(self) -> Scores:
        """The original's scores on validation, in PyTorch."""
        if self._scores is None:
            self._scores = self.task.scores("validation")
        return self._scores

    def knows(self, steps: Sequence[Step]) -> bool:
        """Return whether the steps were applied before, in the same order, and what they made is still here."""
        return _key(steps) in self._kept

    def forget(self) -> None:
        """Let go of every model kept, where memory is short; they are made again when they are asked for."""
        self._kept.clear()

    def make(self, steps: Sequence[Step], checkpoint: str | None = None) -> Made:
        """Apply steps in order; those that were applied before in the same order are not done again.

        Args:
            checkpoint: a file that the last step, a `Distill`, goes on from after a kill.

        Raises:
            FlyweightError: a step cannot do what it was asked, or broke the model.
        """
        made = Made(self.task.model, ())
        for place, step in enumerate(steps):
            key = _key(steps[: place + 1])
            if key not in self._kept:
                current = self._task_after(made)
                if isinstance(step, Distill) and checkpoint is not None and place == len(steps) - 1:
                    step = replace(step, checkpoint=checkpoint)
                change = self._applied(step, current)
                reason = broken(current, change.model)
                if reason is not None:
                    raise InputError(f"{step.name}: {reason}")
                self._keep(key, Made(change.model, (*made.changes, change)))
                if change.interrupted:
                    self._kept.pop(key)
                    raise KeyboardInterrupt
            made = self._kept[key]
        return made

    def _task_after(self, made: Made) -> Task:
        """Return the task as steps left it, taught by the last teacher that they named."""
        task = self.task
        for change in made.changes:
            task = task.after(change)
        return task

    def remade(self, steps: Sequence[Step], learning: Callable[[str], str]) -> Made:
        """Apply the steps of a trial of this or an earlier sitting; what was learned then is read from its file."""
        made = Made(self.task.model, ())
        for place, step in enumerate(steps):
            file = learning(repr(steps[: place + 1])) if isinstance(step, Distill) else None
            made = self.make(steps[: place + 1], checkpoint=file)
        return made

    def finished(self, made: Made) -> Made:
        """Return what was made with its logits recalibrated, as the last thing before the export."""
        model, changes = recalibrate(self.task, made.model, made.changes, self.original)
        return Made(model, (*made.changes, *changes))

    def export(self, made: Made, folder: Path) -> Artefact:
        """Export what was made, each thing computed once where that can be done.

        Raises:
            ExportError: the model cannot be exported.
        """
        samples = [{name: one[name] for name in one if name not in made.dropped} for one in self.samples]
        if any(one.role != "sample" for one in self.task.inputs.values()):
            try:
                found = hoist(made.model, self.task.inputs, real_batches(self.task, samples), RULES)
                if found.done:
                    return make_artefact(made.model, samples, self.rows, folder / "rewritten", served=found.model)
            except (ExportError, EngineError):
                shutil.rmtree(folder / "rewritten", ignore_errors=True)
        return make_artefact(made.model, samples, self.rows, folder / "plain")

    def eager_ms(self) -> float:
        """Return the median time of a request with the original in eager PyTorch, in milliseconds."""

        def eager() -> Any:
            with torch.inference_mode():
                return self.before.model(**self.request)

        rows = max(len(values) for values in self.request.values())
        with evaluating(self.before.model):
            rounds = time_rounds({"before": eager}, candidates=rows, threads=self.threads, seconds=0.5)
        return rounds.latency("before").p50

    def measure(self, made: Made) -> Measured:
        """Export what was made and read size and latency off it.

        Raises:
            ExportError: it cannot be exported.
            EngineError: no engine gives its scores.
        """
        with self._exports() as folder:
            return self._timed(self.export(made, Path(folder)))[0]

    def judge(self, made: Made) -> tuple[Measured, dict[str, Estimate]]:
        """Export what was made, and read size, latency and the drops on validation off it.

        Raises:
            ExportError: it cannot be exported.
            BundleError: it holds what no bundle may.
            EngineError: no engine gives its scores.
            InputError: a metric is not finite.
        """
        with self._exports() as folder:
            artefact = self.export(self.finished(made), Path(folder))
            _check_savable(self.task, artefact)
            measured, engine = self._timed(artefact)
            prepared = find_engine(engine).prepare(artefact.exported.path, self.threads)
            try:
                scores = artefact_scores(self.task, prepared, "validation", artefact.flat_call)
            finally:
                prepared.close()
            return measured, self.drops(scores)

    def _exports(self) -> "tempfile.TemporaryDirectory[str]":
        """Return where the export of a trial lies: in the folder of the search, which clears what a kill leaves."""
        if self.keep is None:
            return tempfile.TemporaryDirectory(prefix="flyweight-trial-")
        return tempfile.TemporaryDirectory(prefix=EXPORTS, dir=self.keep[0])

    def drops(self, after: Scores) -> dict[str, Estimate]:
        """Return the paired drops on validation that a margin holds for, the task's metric first.

        Raises:
            InputError: one is not finite.
        """
        metrics = [self.task.spec, *([LOGLOSS] if recalibrates(self.task) and self.task.spec.name != "logloss" else [])]
        found = {metric.name: self._drop(metric, after) for metric in metrics}
        for name, drop in found.items():
            if not all(map(_finite, (drop.value, drop.high))):
                raise InputError(f"{name} of it on validation is not finite: {drop.value}")
        return found

    def drop_of(self, made: Made) -> Estimate:
        """Return the drop in the task's metric on validation, in PyTorch."""
        return self._drop(self.task.spec, self.task.scores("validation", self.finished(made).model))

    def _drop(self, metric: Any, after: Scores) -> Estimate:
        judged = self.task.judged
        before = self.original
        pair = judged(metric, before.outputs), judged(metric, after.outputs)
        return paired_drop(
            metric, *pair, before.targets, before.groups, confidence=self.confidence, resamples=RESAMPLES
        )

    def _applied(self, step: Step, task: Task) -> Change:
        """Apply a step; a file of a training that is damaged, or of another one, is put away and it begins anew."""
        try:
            return self._apply(step, task)
        except CheckpointError:
            if not isinstance(step, Distill) or step.checkpoint is None:
                raise
            Path(step.checkpoint).unlink()
            return self._apply(step, task)

    def _apply(self, step: Step, task: Task) -> Change:
        """Apply a step; tables of the original are coded by what is known of them already."""
        if isinstance(step, EncodeTables) and step.ratio is not None and task.model is self.task.model:
            return self.coder.at(step.ratio)
        if isinstance(step, CodedTeacher) and step.ratio is not None:
            if step.ratio not in self._teachers:  # one model for all its students, which is asked once for each batch
                self._teachers[step.ratio] = self.coder.at(step.ratio, rounds=0)
            return teaching(step, task, self._teachers[step.ratio])
        if isinstance(step, Factorize) and step.max_macs is not None:
            # What is left after pruning may be fewer layers' least ranks than a share of the original asks for.
            step = replace(step, max_macs=max(step.max_macs, least_macs(task, step.multiple)))
        return step.apply(task)

    def _keep(self, key: str, made: Made) -> None:
        self._kept[key] = made
        while len(self._kept) > MOST_KEPT:
            self._kept.pop(next(iter(self._kept)))

    def _timed(self, artefact: Artefact) -> tuple[Measured, str]:
        """Time a request in every engine that gives the right scores, in turns with the original in PyTorch."""
        path = artefact.exported.path
        choice = choose_engine(
            path, artefact.calls, artefact.reference, threads=self.threads, seconds=0.2, noise=artefact.noise
        )
        arrays = as_arrays(self.request)

        def eager() -> Any:
            with torch.inference_mode():
                return self.before.model(**self.request)

        calls: dict[str, Any] = {"before": eager}
        with ExitStack() as running:
            for name in choice.latencies:
                prepared = find_engine(name).prepare(path, self.threads)
                running.callback(prepared.close)
                given = artefact.one_call({one: arrays[one] for one in prepared.input_names})
                calls[name] = partial(prepared.run, given)
            with evaluating(self.before.model), self.turn():
                rows = max(len(values) for values in arrays.values())
                rounds = self._steady.time("before", calls, rows=rows, threads=self.threads, seconds=SECONDS)
        latencies = {name: rounds.latency(name).p50 for name in choice.latencies}
        engine = min(latencies, key=latencies.__getitem__)
        measured = Measured(
            bytes=artefact.exported.bytes,
            table_bytes=table_bytes(artefact.model),
            macs=artefact.macs.total,
            latency_ms=latencies[engine],
            speedup=rounds.latency("before").p50 / latencies[engine],
            engine=engine,
        )
        return measured, engine


def _check_savable(task: Task, artefact: Artefact) -> None:
    """Refuse an export that no bundle may hold: found out now, not when the best of a search is saved.

    Raises:
        BundleError: with the operator and what is wrong with it.
    """
    path = artefact.exported.path
    beside = path.with_name(DATA)
    data_bytes = beside.stat().st_size if beside.exists() else None
    check_graph(path.read_bytes(), data_bytes, input_entries(task, artefact), "The exported model")


def _key(steps: Sequence[Step]) -> str:
    return ";".join(map(repr, steps))


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")



