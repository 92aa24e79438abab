"""Calibration put right after the last step: a ranker's probabilities must stay true whatever was cut or rounded."""

from torch import nn

from flyweight.graph.quiet import quietly
from flyweight.tables.encode_tables import EncodeTables
from flyweight.tables.recalibration import fit_like, fold, recalibrates
from flyweight.tables.replace import copy_model
from flyweight.task.change import Change
from flyweight.task.progress import stage
from flyweight.task.scores import Scores, evaluating
from flyweight.task.task import Task

STEP = "recalibrate"


def recalibrate(
    task: Task, model: nn.Module, changes: tuple[Change, ...], before: Scores | None = None
) -> tuple[nn.Module, tuple[Change, ...]]:
    """Return a model whose logits are scaled and shifted to the least logloss on validation, and the change.

    Nothing is done where outputs are no probabilities, where no step changed the model, and where the coding of tables,
    which recalibrates itself, was the last that did.
    """
    models = [task.model, *(change.model for change in changes)]
    working = [change for change, before in zip(changes, models, strict=False) if change.model is not before]
    if not recalibrates(task) or not working or working[-1].step == EncodeTables(ratio=2).name:
        return model, ()
    with stage("Recalibrating on validation data"):
        before, after = before or task.scores("validation"), task.scores("validation", model)
        fitted = fit_like(task, before.outputs, after.outputs, after.targets)
        if fitted.is_identity:
            return model, ()
        inputs, _, _ = next(task.batches("validation"))
        shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
        copied = copy_model(model, shared)
        with evaluating(copied), quietly():
            folded, how = fold(copied, fitted, inputs)
    done = {"what": "recalibration", "scale": fitted.scale, "bias": fitted.bias, "how": how}
    return folded, (Change(STEP, folded, done=(done,)),)
