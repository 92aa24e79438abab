"""The verb: search for a recipe or take the steps given, export, pick the engine, measure, certify, hand back."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flyweight.distillation.shards import one_thread
from flyweight.distillation.together import training_together
from flyweight.errors import InputError
from flyweight.parallel.cluster.find import find_cluster
from flyweight.parallel.cluster.recovery import recover_in_ranks
from flyweight.planning.automatic import Automatic, find_recipe, folder_of, take
from flyweight.planning.budget import Budget
from flyweight.planning.evidence import contents_of
from flyweight.planning.exact_steps import exact_recipe
from flyweight.planning.interrupts import interrupts_wait
from flyweight.planning.looks import confidence_of_look, note_look
from flyweight.planning.measuring import measure
from flyweight.planning.recalibrate import recalibrate
from flyweight.planning.recipe import Recipe
from flyweight.planning.report_data import report_of
from flyweight.planning.result import Result, make_result
from flyweight.planning.rewriting import rewritten_artefact
from flyweight.planning.run_steps import Applied, run_steps
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.workbench import Workbench
from flyweight.planning.search.workers import default_workers
from flyweight.planning.setting import Setting, export_seconds, prepare
from flyweight.task.progress import stage
from flyweight.task.runner import Runner
from flyweight.task.step import Step
from flyweight.task.task import Task

#: The drop allowed when neither a budget nor steps are given.
DEFAULT_BUDGET = Budget(max_drop=0.001)


def compress(
    task: Task,
    budget: Budget | None = None,
    *,
    steps: Sequence[Step] | Recipe | None = None,
    rows: int | None = None,
    run: str | Path | None = None,
    pick: int | None = None,
    max_trials: int | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    source: str = "",
    rewrite: bool | None = None,
) -> Result:
    """Return the smallest, fastest model found that stays inside a budget, exported, measured and certified.

    Args:
        task: the trained model and its data; it is not changed.
        budget: the limits; without steps they are what the search is for. None without steps allows a drop of 0.001.
        steps: what to do, in order, instead of searching, or a recipe (`read_recipe`). One that breaks the model, or
            that must pay and makes it slower, is taken back, with the reason among what was skipped.
        rows: of the call that is timed; None takes 500 candidates of one request, and 64 rows where nothing is
            scored by request (images, text).
        run: a folder that the search keeps its trials in: killed, it goes on from there; done, another of its points
            can be taken without searching again. None keeps none.
        pick: the number of a trial in `run` that is taken instead of searching.
        max_trials: of the search; None for no limit but `Budget.max_minutes`.
        workers: processes that search; None takes one for every four cores, at most four. More than one needs a task
            that can be sent to another process.
        cluster: where trials are made, the test split is scored and a `Distill` with `shards` learns: "local"
            (processes of this machine), "auto" or "ray://host:port", with `workers` at once, a core each where None;
            see `find_cluster`. None does it here.
        source: how the command line names the task, to be noted in the folder.
        rewrite: True computes once what a request repeats without asking the clock whether that is quicker, False
            never; None does what the recipe says, and asks the clock where it says nothing.

    Raises:
        InputError: a step is no step or cannot do what it was asked; the budget contradicts itself or is beyond what
            any model of this task can be; the folder is of another task.
        ExportError: the model cannot be exported; names the operator and the module.
        EngineError: no engine gives the scores that PyTorch gives.

    Interrupted (Ctrl-C) while it searches, it goes on with the best found so far, marked `interrupted`.
    Interrupted later, it measures what was found and hands it back; a second interrupt stops it.
    """
    if isinstance(steps, Recipe):
        rewrite = steps.rewrite if rewrite is None else rewrite
        steps = steps.steps
    _check_arguments(task, budget, steps, run, pick)
    if rewrite is not None and not isinstance(rewrite, bool):
        raise InputError(f"rewrite must be True, False, or None to ask the clock; seen {rewrite!r}.")
    for name, count in (("rows", rows), ("max_trials", max_trials), ("workers", workers)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise InputError(f"{name} must be a positive whole number; seen {count!r}.")
    with ExitStack() as stack:
        folder: RunFolder | None = None
        if pick is not None and run is not None:
            RunFolder(Path(run)).facts()  # a folder without a search is not made one
        if steps is None:  # opened before any work: it may be of another task, or in use
            folder = stack.enter_context(folder_of(None if run is None else Path(run), task, source))
        runner: Runner | None = None
        if cluster is not None:
            runner = stack.enter_context(find_cluster(cluster, workers))
            how = partial(recover_in_ranks, most=runner.workers, cluster=cluster)
            stack.enter_context(training_together(how))
        if runner is not None and not runner.local:
            stack.enter_context(one_thread())  # as a worker does, which has one core
        limits = budget or (_noted(folder, pick) if steps is None else Budget())
        confidence_of_look(limits.confidence, folder)  # too many looks are refused before the search
        setting = prepare(task, rows)
        if folder is None:
            chosen = _given(setting, tuple(steps or ()))
        else:
            chosen = _searched(setting, limits, folder, pick, max_trials, workers, runner)
        with interrupts_wait("A model is found and will be measured first; Ctrl-C again drops it."):
            return _finished(setting, chosen, limits, folder, rewrite, runner)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """A recipe and what it made; `found` is the search that found it, None where the steps were given."""

    steps: tuple[Step, ...]
    applied: Applied
    found: Automatic | None = None


def _given(setting: Setting, steps: tuple[Step, ...]) -> _Chosen:
    return _Chosen(steps, run_steps(setting.task, steps, setting.gate()))


def _searched(
    setting: Setting,
    limits: Budget,
    folder: RunFolder,
    pick: int | None,
    max_trials: int | None,
    workers: int | None,
    runner: Runner | None,
) -> _Chosen:
    """Search, or take the trial that was picked."""
    bench = Workbench(
        setting.task,
        setting.before,
        setting.samples,
        setting.rows,
        setting.request,
        setting.threads,
        limits.confidence,
        (folder.path, str(folder.facts()["task"])),
        folder,
        folder.timing,
    )
    folder.note_budget(limits)
    if pick is None:
        found = find_recipe(
            bench,
            limits,
            folder,
            export_seconds=setting.export_seconds,
            begun=setting.begun,
            most_trials=max_trials,
            workers=runner.workers if runner is not None else workers or default_workers(setting.task),
            runner=runner,
        )
    else:
        found = take(bench, limits, folder, pick)
    return _Chosen(found.steps, found.applied, found)


def _finished(
    setting: Setting,
    chosen: _Chosen,
    limits: Budget,
    folder: RunFolder | None,
    rewrite: bool | None,
    runner: Runner | None,
) -> Result:
    """Export, measure, certify, and put the result together."""
    task, applied, found = setting.task, chosen.applied, chosen.found
    model, recalibrated = recalibrate(task, applied.model, applied.changes)
    changes = (*setting.widened, *applied.changes, *recalibrated)
    interrupted = any(change.interrupted for change in changes) or (found is not None and found.found.interrupted)
    words = "the best found until the interrupt" if interrupted else "the compressed model"
    with stage(f"Exporting {words}", seconds=export_seconds(model)):
        wanted = [{name: one[name] for name in one if name not in applied.dropped} for one in setting.samples]
        place = Path(setting.folder.name, "after")
        after, rewrites = rewritten_artefact(task, model, wanted, setting.gate(), place, rewrite)
    told = (*changes, rewrites) if rewrites.done or rewrites.skipped else changes
    looked = replace(limits, confidence=confidence_of_look(limits.confidence, folder))
    note = note_look(folder, looked.confidence)  # before it is looked at: a kill in between must not hide the look
    findings = measure(task, (setting.before, after), looked, setting.threads, setting.request, runner)
    data = report_of(task, findings, told, looked, chosen.steps, setting.seconds)
    data = replace(data, notes=(*note, *data.notes))
    if found is not None:
        data = found.in_report(data, limits, setting.before.exported.bytes)
    return make_result(
        setting.folder,
        data,
        contents=contents_of(task, findings, told, setting.seconds),
        model=model,
        before=findings.before,
        after=findings.after,
        drop=findings.comparison.drop,
        changes=changes,
        rewrites=rewrites,
        recipe=exact_recipe(applied.changes, chosen.steps, rewrites),
        frontier=tuple(found.points()) if found else tuple(point for change in changes for point in change.curve),
        engine=findings.race.engine,
        missed=data.missed,
        interrupted=interrupted,
    )


def _noted(folder: RunFolder | None, pick: int | None) -> Budget:
    """Return the budget that a search was for, when one of its trials is picked; the default one otherwise."""
    known = folder.budget() if folder is not None and pick is not None else None
    return known or DEFAULT_BUDGET


def _check_arguments(task: object, budget: object, steps: object, run: object, pick: object) -> None:
    if not isinstance(task, Task):
        raise InputError(f"task must be a Task; seen {type(task).__name__}.")
    if budget is not None and not isinstance(budget, Budget):
        raise InputError(f"budget must be a Budget, as in Budget(max_drop=0.001); seen {type(budget).__name__}.")
    if pick is not None and (run is None or steps is not None):
        raise InputError("pick= takes a trial of a search; give the folder that it was kept in as run=, and no steps.")
    if steps is None:
        return
    if run is not None:
        raise InputError("run= is the folder of a search, and with steps= nothing is searched; leave one of them out.")
    if not isinstance(steps, Sequence):
        raise InputError(f"steps must be a list of steps; seen {type(steps).__name__}.")
    for step in steps:
        if not isinstance(step, Step):
            raise InputError(f"steps must hold steps such as EncodeTables(ratio=100); seen {type(step).__name__}.")
