"""The last change before the export: each thing computed once. Kept where it gives the same scores and is no slower."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from flyweight.errors import EngineError, ExportError
from flyweight.planning.artefact import Artefact, make_artefact
from flyweight.planning.gate import Gate, is_slower
from flyweight.report.words import REQUEST_ONLY
from flyweight.rewrite.apply_rules import Done, Rewritten
from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.hoisted_model import HoistedModel
from flyweight.rewrite.levels import Level, is_tensor, levels_of
from flyweight.rewrite.rules import RULES
from flyweight.task.change import Change, Skipped
from flyweight.task.progress import stage
from flyweight.task.task import Task

REWRITE = "rewrite"
#: Rows of a real batch that rewrites are checked on, and seconds of timing a rewritten model against the plain one.
CHECKED_ROWS, SECONDS = 256, 1.5


def rewritten_artefact(
    task: Task,
    model: nn.Module,
    samples: list[dict[str, Tensor]],
    gate: Gate,
    folder: Path,
    rewrite: bool | None = None,
) -> tuple[Artefact, Change]:
    """Export a model as it is and rewritten, and return the quicker of the two with what was done.

    Args:
        rewrite: True keeps the rewritten one without asking the clock, False makes none.

    Raises:
        ExportError: the model itself cannot be exported; names the operator and the module.
    """
    plain = make_artefact(model, samples, gate.rows, folder / "plain")
    if rewrite is False:
        return plain, Change(REWRITE, model)
    if not any(field.role != "sample" for field in task.inputs.values()):
        return plain, Change(REWRITE, model)
    try:
        with stage("Looking for what a request computes more than once"):
            found = hoist(model, task.inputs, real_batches(task, samples), RULES)
    except ExportError as error:
        untraced = Skipped(REWRITE, f"the model cannot be traced: {error}", REWRITE)
        return plain, Change(REWRITE, model, skipped=(untraced,))
    if not found.done:
        return plain, Change(REWRITE, model, skipped=(*found.refused, *found.undone))
    return _kept(plain, model, samples, found, gate, folder, timed=rewrite is None)


def _kept(
    plain: Artefact,
    model: nn.Module,
    samples: list[dict[str, Tensor]],
    found: Rewritten,
    gate: Gate,
    folder: Path,
    *,
    timed: bool,
) -> tuple[Artefact, Change]:
    skipped = (*found.refused, *found.undone)
    try:
        with stage("Timing what the rewrites gain", seconds=SECONDS + 3.0):
            better = make_artefact(model, samples, gate.rows, folder / "rewritten", served=found.model)
            gain = gate.gain(plain, better, SECONDS) if timed else None
    except (ExportError, EngineError) as error:
        return plain, Change(REWRITE, model, skipped=(*skipped, Skipped(REWRITE, f"taken back: {error}", REWRITE)))
    if gain is not None and is_slower(gain):
        seen = f"{gain.value:.2f} times the speed before"
        slower = Skipped(REWRITE, "taken back: a request became slower", REWRITE, seen)
        return plain, Change(REWRITE, model, skipped=(*skipped, slower))
    done = tuple(
        {"what": "rewrite", "rule": one.rule, "times": one.times, "where": list(one.where)} for one in counted(found)
    )
    return better, Change(REWRITE, model, done=done, skipped=skipped)


def counted(found: Rewritten) -> tuple[Done, ...]:
    """Return what was done; of what was moved to the request, how many operators a request is worked out in now."""
    if not isinstance(found.model, HoistedModel):
        return found.done
    levels = levels_of(found.model.body)
    once = sum(
        at == Level.REQUEST and node.op in ("call_function", "call_module") and is_tensor(node)
        for node, at in levels.items()
    )
    return tuple(replace(one, times=once) if one.rule == REQUEST_ONLY else one for one in found.done)


def real_batches(task: Task, samples: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Return real rows and the samples, whose ids are spread over every vocabulary."""
    inputs, target, _ = next(task.batches("validation"))
    rows = min(len(target), CHECKED_ROWS)
    names = samples[0].keys()
    whole = all(len(inputs[name]) == len(target) for name in names)
    real = {name: inputs[name][:rows] if whole else inputs[name] for name in names}
    enough = {name: torch.cat([value, value]) if rows == 1 and whole else value for name, value in real.items()}
    return [enough, *samples]
