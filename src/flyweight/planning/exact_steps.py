"""Steps as they turned out: what each chose is written into it, so that they give the same bytes without choosing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flyweight.distillation.distill import Distill
from flyweight.planning.recipe import STEPS, Recipe
from flyweight.planning.run_steps import TAKEN_BACK
from flyweight.pruning.factorize import Factorize, ranks_of
from flyweight.pruning.prune import Prune
from flyweight.quantization.given_precisions import precisions_of, rounds_activations
from flyweight.quantization.quantize import Quantize
from flyweight.tables.coded_teacher import CodedTeacher
from flyweight.tables.encode_tables import EncodeTables
from flyweight.tables.plan import plan_of, plan_of_records
from flyweight.task.change import Change
from flyweight.task.step import Step


def exact_steps(changes: Sequence[Change], steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps with what was chosen made explicit: codings, ranks, precisions, the learning rate.

    Run on the same task they give the same bytes whatever a clock says: none is taken back for being slower
    (`force=True`), nothing is chosen by timing. Steps that were taken back or changed nothing are left out. What is
    chosen without a clock (units, fields, shared values) is chosen again, alike. Steps of one's own stay as they are.

    Args:
        changes: of the steps, in order; fewer where an interrupt ended them.
        steps: as they were run.
    """
    found = (_exact(step, change) for step, change in zip(steps, changes, strict=False))
    return tuple(step for step in found if step is not None)


def exact_recipe(changes: Sequence[Change], steps: Sequence[Step], rewrites: Change) -> Recipe:
    """Return the recipe of a result; see `exact_steps`."""
    return Recipe(exact_steps(changes, steps), rewrite=bool(rewrites.done))


def inexact(changes: Sequence[Change]) -> tuple[str, ...]:
    """Return what keeps a recipe from giving the same bytes, as notes: training that was interrupted."""
    return tuple(
        f"{change.step} was interrupted in its training; run again, it goes on to its end and gives other bytes."
        for change in changes
        if change.interrupted and change.step != EncodeTables(ratio=2).name
    )


def _exact(step: Step, change: Change) -> Step | None:
    if any(one.what == change.step and one.why.startswith(TAKEN_BACK) for one in change.skipped):
        return None
    make = _EXACT.get(type(step))
    if make is not None:
        return make(step, change)
    return step if change.done or type(step) not in STEPS.values() else None  # one of one's own may keep no record


def _tables(step: Any, change: Change) -> EncodeTables | None:
    plan = plan_of(change)
    return EncodeTables(codings=plan, seed=step.seed) if plan else None


def _teacher(step: Any, change: Change) -> CodedTeacher | None:
    plan = plan_of_records(record for done in change.done for record in done["plan"])
    return CodedTeacher(codings=plan, seed=step.seed) if plan else None


def _pruned(step: Any, change: Change) -> Prune | None:
    return replace(step, force=True) if change.done else None


def _ranks(step: Any, change: Change) -> Factorize | None:
    ranks = ranks_of(change)
    return Factorize(ranks=ranks, seed=step.seed, force=True, contract=step.contract) if ranks else None


def _precisions(step: Quantize, change: Change) -> Quantize | None:
    precisions = precisions_of(change)
    if set(precisions.values()) <= {"float32"}:
        return None
    if step.dynamic:
        return replace(step, force=True)
    unread = Quantize()
    return replace(
        step,
        precisions=precisions,
        activations="int8" if rounds_activations(change) else None,
        force=True,
        weights=unread.weights,
        mixed=unread.mixed,
        max_error=unread.max_error,
    )


def _learned(step: Any, change: Change) -> Distill | None:
    rates = [done["lr"] for done in change.done if done["what"] == "training"]
    return replace(step, lr=rates[0], checkpoint=None) if rates else None


#: Step -> what makes it explicit; all others are chosen again, alike.
_EXACT: Mapping[type[Any], Callable[[Any, Change], Step | None]] = {
    EncodeTables: _tables,
    CodedTeacher: _teacher,
    Prune: _pruned,
    Factorize: _ranks,
    Quantize: _precisions,
    Distill: _learned,
}
