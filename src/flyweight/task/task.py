"""The task: a trained model, its inputs, its data and what counts as quality. It checks itself when built."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.task.batches import Batch, read_batches
from flyweight.task.change import Change
from flyweight.task.field import Field
from flyweight.task.finite import count_not_finite
from flyweight.task.loss import Loss, OutputKind, default_loss
from flyweight.task.metric import Metric, find_metric
from flyweight.task.scores import Scores, as_arrays, call_model, evaluating

Split = Literal["train", "validation", "test"]
Data = Iterable[Any]
OUTPUT_KINDS = ("logit", "probability", "columns", "value")
#: Rows whose outputs must all lie in [0, 1] for a model to count as one that returns probabilities.
LOOKED_AT = 10_000


@dataclass(frozen=True, eq=False)
class Task:
    """A trained model with the data that says how good it is.

    Args:
        model: a trained module, called as `model(**inputs)`, returning one tensor with a row for each target. It is
            never changed.
        inputs: a `Field` for each argument of the model.
        train, validation, test: re-iterables (a DataLoader, a list) of `(dict[str, Tensor], target)`. Search and
            calibration use the first two; the test split is scored once, for the certificate. Validation and test must
            give the same rows in the same order on every pass, as a DataLoader does here even with `shuffle=True`.
        metric: a name ("auc", "ndcg@10"), a `Metric`, or a callable `(outputs, targets) -> float`, larger is better.
        loss: `loss(outputs, targets) -> (rows,)` or a scalar; None takes the one that goes with the metric.
        group: the name of an id in the batches that says which rows belong together (a request, a user): intervals
            are then made by resampling groups. It may be an input of the model or an extra key of the batches.
        output: what the model returns: "logit", "probability" (one a row), "columns" (a score for each class or item)
            or "value". None finds out from the shape and, for binary targets, from whether all lie in [0, 1].
        name: what the reports call the model.
        original: the model that the task was first built around.
        teacher: whom every distillation learns from: the original, unless a step put a better one in its place.

    Raises:
        InputError: a split is empty or can be read only once; an input is missing, unknown to the model, out of
            range or not finite; a weight is not finite; the target does not fit the metric.

    Example:
        >>> task = Task(model, {"item_id": Field(rows=1000)}, train, validation, test, metric="auc")  # doctest: +SKIP
    """

    model: nn.Module
    inputs: Mapping[str, Field]
    train: Data = field(repr=False)
    validation: Data = field(repr=False)
    test: Data = field(repr=False)
    metric: str | Metric | Callable[[Any, Any], float] = "auc"
    loss: Loss | None = None
    group: str | None = None
    output: OutputKind | None = None
    name: str = "model"
    spec: Metric = field(init=False, repr=False)
    original: nn.Module = field(init=False, repr=False)
    teacher: nn.Module = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_arguments(self)
        object.__setattr__(self, "spec", find_metric(self.metric))
        object.__setattr__(self, "original", self.model)
        object.__setattr__(self, "teacher", self.model)
        _check_weights(self.model)
        inputs, target, _ = next(self.batches("train"), (None, None, None))
        if inputs is None or target is None:
            raise InputError("The train split is empty; give at least one batch.")
        with evaluating(self.model), torch.no_grad():
            outputs = call_model(self.model, inputs, len(target))
        for split in ("validation", "test"):
            self._check_split(split, outputs)
        if self.output is None:
            object.__setattr__(self, "output", self._find_output())

    def batches(self, split: Split) -> Iterator[Batch]:
        """Yield `(inputs, target, group ids or None)` of a split, each batch checked.

        Raises:
            InputError: naming the split, the batch and the field.
        """
        return read_batches(split, getattr(self, split), self.inputs, self.group)

    def scores(self, split: Split, model: nn.Module | None = None) -> Scores:
        """Run a model (this task's own by default) over a split, in evaluation mode and without gradients."""
        outputs: list[Tensor] = []
        targets: list[Tensor] = []
        groups: list[Tensor] = []
        model = self.model if model is None else model
        with evaluating(model), torch.no_grad():
            for inputs, target, group in self.batches(split):
                outputs.append(call_model(model, inputs, len(target)))
                targets.append(target)
                if group is not None:
                    groups.append(group)
        if not outputs:
            raise InputError(f"The {split} split is empty; give at least one batch.")
        return as_arrays(outputs, targets, groups)

    def row_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the task's loss of each row, shape (rows,), or a scalar where the user's own loss gives one."""
        loss = self.loss or default_loss(self.spec, self.output or "logit")
        if targets.ndim == 2 and targets.shape[1] == 1 and outputs.ndim == 1:
            targets = targets[:, 0]
        return loss(outputs, targets)

    def probabilities(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return outputs as probabilities where the model gives logits; other outputs as they are."""
        if self.output != "logit":
            return outputs
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(outputs, -700, 700))), dtype=np.float64)

    def judged(self, metric: Metric, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return outputs as a metric wants them: probabilities where it compares with a threshold or takes logs."""
        wants_probability = metric.name in ("logloss", "calibration_error") or metric.kind == "label"
        return self.probabilities(outputs) if wants_probability and outputs.ndim == 1 else outputs

    def with_model(self, model: nn.Module) -> "Task":
        """Return the same task around another model, of the same `original`, without checking the data again."""
        changed = copy.copy(self)
        object.__setattr__(changed, "model", model)
        return changed

    def after(self, change: Change) -> "Task":
        """Return the task as a step left it: around its model, taught by its teacher where it names one."""
        changed = self.with_model(change.model)
        if change.teacher is not None:
            object.__setattr__(changed, "teacher", change.teacher)
        return changed

    def _check_split(self, split: Split, outputs: Tensor) -> None:
        """Read a whole split once, so that bad data is found before the work and not after it."""
        first: dict[str, Tensor] = {}
        targets: list[Tensor] = []
        groups: set[int] = set()
        for inputs, target, group in self.batches(split):
            first = first or inputs
            targets.append(target)
            if group is not None and len(groups) < 2:
                groups |= set(torch.unique(group).tolist())
        if not targets:
            raise InputError(f"The {split} split is empty; give at least one batch.")
        again, target, _ = next(self.batches(split))
        if not (_same(target, targets[0]) and all(_same(again[name], first[name]) for name in first)):
            raise InputError(
                f"The {split} split gives other rows on a second pass; models are compared row by row. "
                "Leave out shuffling of your own and random augmentation."
            )
        if len(groups) == 1:
            raise InputError(
                f"All rows of the {split} split are in one group, {self.group!r} = {groups.pop()}; an interval needs "
                "at least two. Take a larger split, or a finer group."
            )
        widths = {tuple(target.shape[1:]) for target in targets}
        if len(widths) > 1:
            raise InputError(f"The {split} targets have different shapes after the first dimension: {sorted(widths)}.")
        _check_target(split, self.spec, torch.cat(targets), outputs, grouped=self.group is not None)

    def _find_output(self) -> OutputKind:
        """Tell logits from probabilities by looking: a trained ranker's logits do not all lie in [0, 1]."""
        seen = 0
        for inputs, target, _ in self.batches("validation"):
            with evaluating(self.model), torch.no_grad():
                outputs = call_model(self.model, inputs, len(target))
            if self.spec.kind == "real":
                return "value"
            if outputs.ndim > 1:
                return "columns" if self.spec.kind != "any" or _are_indices(target, outputs.shape[1]) else "value"
            if self.spec.kind == "any" and self.loss is not None:
                return "value"
            if self.spec.kind == "any" and not bool(((target == 0) | (target == 1)).all()):
                return "value"
            if not bool(((outputs >= 0) & (outputs <= 1)).all()):
                return "logit"
            seen += len(target)
            if seen >= LOOKED_AT:
                break
        return "probability"


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def _are_indices(target: Tensor, width: int) -> bool:
    """Return whether targets are one index of a column a row, and not numbers to be predicted."""
    flat = (target[:, 0] if target.ndim == 2 and target.shape[1] == 1 else target).double()
    return flat.ndim == 1 and bool(((flat == flat.round()) & (flat >= 0) & (flat < width)).all())


def renamed(task: Task, name: str) -> Task:
    """Return the same task under another name, checked again."""
    return replace(task, name=name)


def _check_arguments(task: Task) -> None:
    if not isinstance(task.model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module; seen {type(task.model).__name__}.")
    if not task.inputs:
        raise InputError("inputs is empty; name each argument of the model's forward() with a Field.")
    for name, value in task.inputs.items():
        if not isinstance(value, Field):
            raise InputError(f"inputs[{name!r}] must be a Field; seen {type(value).__name__}.")
    for split in ("train", "validation", "test"):
        data = getattr(task, split)
        if not isinstance(data, Iterable):
            raise InputError(f"{split} must be iterable; seen {type(data).__name__}.")
        if isinstance(data, Iterator):
            raise InputError(
                f"{split} is an iterator that can be read only once; give a list or a DataLoader, "
                "because every split is read several times."
            )
    if task.output is not None and task.output not in OUTPUT_KINDS:
        raise InputError(f"output {task.output!r} is unknown; use one of {', '.join(OUTPUT_KINDS)}.")


def _check_weights(model: nn.Module) -> None:
    for name, weight in [*model.named_parameters(), *model.named_buffers()]:
        if bad := count_not_finite(weight):
            raise InputError(
                f"Weight {name!r} holds {bad} NaN or infinite values of {weight.numel()}; "
                "the model is not trained properly: lower the learning rate or restore an earlier checkpoint."
            )


def _check_target(split: str, metric: Metric, target: Tensor, outputs: Tensor, *, grouped: bool) -> None:
    """Check that the targets of a split are what the metric needs, given the shape of the model's outputs."""
    if metric.needs_group and not grouped:
        raise InputError(f"Metric {metric.name!r} needs Task(group=...): the input that tells requests or users apart.")
    if metric.kind == "any":
        return
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]
    columns = outputs.ndim == 2
    if metric.kind == "real":
        if target.shape[1:] != outputs.shape[1:]:
            raise _misfit(split, metric, target, outputs, "targets of the shape of the model's outputs")
        return
    if target.ndim != 1 or outputs.ndim > 2 or (metric.kind == "binary" and columns):
        raise _misfit(split, metric, target, outputs, "one target and one score a row, both of shape (rows,)")
    if columns:
        _check_indices(split, metric, target, outputs)
    else:
        _check_binary(split, metric, target, grouped=grouped)


def _check_indices(split: str, metric: Metric, target: Tensor, outputs: Tensor) -> None:
    width = outputs.shape[1]
    whole = not target.is_floating_point() or bool((target == target.round()).all())
    if not whole or int(target.min()) < 0 or int(target.max()) >= width:
        raise InputError(
            f"Metric {metric.name!r} on a model with {width} outputs a row needs targets that are indices from 0 to "
            f"{width - 1}; the {split} targets run from {target.min().item()} to {target.max().item()}."
        )


def _check_binary(split: str, metric: Metric, target: Tensor, *, grouped: bool) -> None:
    if not bool(((target == 0) | (target == 1)).all()):
        raise InputError(
            f"Metric {metric.name!r} needs 0/1 targets; the {split} targets hold "
            f"{target[(target != 0) & (target != 1)][0].item()}."
        )
    if bool((target == target[0]).all()):
        raise InputError(
            f"All {len(target):,} targets of the {split} split are {int(target[0])}; {metric.name} needs both classes. "
            "Take a larger or a stratified split."
        )
    if metric.kind == "ranking" and not grouped:
        raise InputError(
            f"Metric {metric.name!r} on one score a row needs Task(group=...): the input that tells requests apart."
        )


def _misfit(split: str, metric: Metric, target: Tensor, outputs: Tensor, needs: str) -> InputError:
    return InputError(
        f"Metric {metric.name!r} needs {needs}; the {split} targets have shape {tuple(target.shape)} "
        f"and the model returns {tuple(outputs.shape)}."
    )
