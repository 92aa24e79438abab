"""The steps one after the other; one that breaks the model or makes it slower is taken back, and the rest goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from flyweight.errors import EngineError, ExportError, InputError
from flyweight.planning.gate import Gate, is_slower
from flyweight.task.change import Change, Skipped
from flyweight.task.finite import count_not_finite
from flyweight.task.scores import call_model, evaluating
from flyweight.task.step import Step
from flyweight.task.task import Task

#: What the reason of a step that did not hold begins with.
TAKEN_BACK = "taken back"


@dataclass(frozen=True, eq=False)
class Applied:
    """What the steps made.

    Args:
        model: the last model that held.
        changes: a change for each step that ran; one that was taken back says why in `skipped`.
        dropped: inputs that the model no longer takes.
    """

    model: nn.Module
    changes: tuple[Change, ...]
    dropped: tuple[str, ...]


def run_steps(task: Task, steps: Sequence[Step], gate: Gate) -> Applied:
    """Apply steps in order, each to the model of the one before.

    A step is taken back when a weight or an output of its model is not finite (the tensor is named), when its outputs
    have another shape, when the model cannot be exported any more, or when a step that has `force=False` makes a
    request slower in the quickest engine.

    Raises:
        InputError: a step cannot do what it was asked with this model.
    """
    changes: list[Change] = []
    current = task
    for step in steps:
        change = step.apply(current)
        reason, seen = broken(current, change.model), ""
        if reason is None:
            reason, seen = _not_worth_it(step, current.model, change, gate)
        if reason is not None:
            changes.append(_taken_back(change, current.model, reason, seen))
            continue
        changes.append(change)
        current = current.after(change)
        if change.interrupted:
            break
    dropped = tuple(name for change in changes for name in change.dropped_inputs)
    return Applied(current.model, tuple(changes), dropped)


def broken(task: Task, model: nn.Module) -> str | None:
    """Return why a model cannot be used in place of the task's, or None when it can."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if bad := count_not_finite(tensor):
            return f"{name.removeprefix('body.')} holds {bad:,} NaN or infinite values of {tensor.numel():,} after it"
    inputs, target, _ = next(task.batches("validation"))
    with evaluating(task.model), evaluating(model), torch.no_grad():
        old = call_model(task.model, inputs, len(target))
        try:
            new = call_model(model, inputs, len(target))
        except InputError as error:
            return f"the model does not run after it: {error}"
    if new.shape != old.shape:
        return f"the model's outputs have shape {tuple(new.shape)} after it, not {tuple(old.shape)}"
    if not bool(torch.isfinite(new).all()):
        return f"{int((~torch.isfinite(new)).sum()):,} of {new.numel():,} outputs are not finite after it"
    return None


def _not_worth_it(step: Step, old: nn.Module, change: Change, gate: Gate) -> tuple[str | None, str]:
    """Return why a step that must pay does not, and the numbers; None when it does, or was forced, or need not."""
    if getattr(step, "force", True) or change.model is old or change.dropped_inputs:
        return None, ""
    try:
        gain = gate.pays(old, change.model, step.name)
    except (ExportError, EngineError) as error:
        return f"no engine runs the model after it: {error}", ""
    if not is_slower(gain):
        return None, ""
    seen = f"{gain.value:.2f} times the speed before [{gain.low:.2f}, {gain.high:.2f}]"
    return "a request became slower in the quickest engine; force=True keeps it", seen


def _taken_back(change: Change, model: nn.Module, reason: str, seen: str) -> Change:
    kept = replace(change, model=model, done=(), curve=(), dropped_inputs=())
    skipped = Skipped(change.step, f"{TAKEN_BACK}: {reason}", change.step, seen)
    return replace(kept, skipped=(*change.skipped, skipped))
