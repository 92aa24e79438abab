"""What is learned over several processes: a model, batches, and the loss of a batch; each process makes its own."""

from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import get_args

import torch
from torch import Tensor, nn

from flyweight.distillation.losses import default_distill_loss, outputs_loss
from flyweight.errors import InputError
from flyweight.parallel.sharded.tables import TableOptimizer
from flyweight.task.batches import Batch
from flyweight.task.scores import cuts_by_row
from flyweight.task.task import Task

TEMPERATURE = 2.0
#: Mean loss of rows: of outputs, targets, and what the teacher says or None.
LessonLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is learned.

    Args:
        model: with the weights that it starts from. Tables too large for one process may be on the device "meta": their
            rows are drawn where they belong.
        batches: gives `(inputs, target, group or None)`, the same on each call and in each process.
        count: how many batches that is.
        loss: the mean loss of rows.
        teacher: what the loss is told of, or None. Its tables are shared out like the model's.
    """

    model: nn.Module
    batches: Callable[[], Iterable[Batch]]
    count: int
    loss: LessonLoss
    teacher: nn.Module | None = None


    def first(self, rows: int) -> tuple[dict[str, Tensor], int]:
        """Return the first rows of the first batch, up to so many, and how many they are.

        Raises:
            InputError: there is no batch.
        """
        for inputs, target, _ in self.batches():
            return {name: value[:rows] for name, value in inputs.items()}, len(target[:rows])
        raise InputError("The train split is empty; give at least one batch.")


#: Makes the lesson in each process: a function of a module, or a `functools.partial` of one.
MakeLesson = Callable[[], Lesson]


def lesson_of(task: Task, *, recover: bool = False) -> Lesson:
    """Return what a task's train split teaches its model: the labels, or to say what its teacher says.

    Raises:
        InputError: a batch cannot be shared out by rows, so that processes cannot share it.
    """
    inputs, target, _ = next(task.batches("train"))
    if not cuts_by_row(task.model, inputs, len(target)):
        raise InputError(
            "The model's outputs for some rows of a batch change with the other rows, or its inputs are not one a row; "
            "processes share each batch by rows. Give inputs of shape (rows, ...)."
        )
    count = len(task.train) if isinstance(task.train, Sized) else sum(1 for _ in task.batches("train"))
    data = _without_models(task)
    batches = partial(data.batches, "train")
    if not recover:
        return Lesson(task.model, batches, count, partial(_labels, data))
    output = task.output or "logit"
    distance = outputs_loss(default_distill_loss(output), output, TEMPERATURE)
    return Lesson(task.model, batches, count, partial(_teacher, distance), task.teacher)


def _without_models(task: Task) -> Task:
    """Return a task's data and loss, which outlive whole tables in a process that trains a part of them."""
    data = task.with_model(nn.Identity())
    for name in ("original", "teacher"):
        object.__setattr__(data, name, data.model)
    return data


def _labels(task: Task, outputs: Tensor, target: Tensor, said: Tensor | None) -> Tensor:
    return task.row_loss(outputs, target).mean()


def _teacher(distance: LessonLoss, outputs: Tensor, target: Tensor, said: Tensor | None) -> Tensor:
    assert said is not None
    return distance(outputs, said, None)


def fresh(model: nn.Module, *, spread: float, seed: int) -> nn.Module:
    """Draw all weights anew, in place: tables from a normal distribution, other layers as they start themselves.

    Args:
        spread: standard deviation of a table's values.

    Raises:
        InputError: a layer has weights and does not say how they start (`reset_parameters`).
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, module in model.named_modules():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                module.weight.normal_(0.0, spread)
                if module.padding_idx is not None:
                    module.weight[module.padding_idx] = 0.0
            elif callable(reset := getattr(module, "reset_parameters", None)):
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                raise InputError(
                    f"Module {name!r} ({type(module).__name__}) has weights and no reset_parameters(), so it cannot be "
                    "started anew; give a task whose model is not trained yet."
                )
    return model


@dataclass(frozen=True)
class ShardedTraining:
    """How to train.

    Args:
        epochs: passes over the train split; a fraction is a part of one.
        batch_rows: rows of a step, over all processes together; larger batches of the task are cut, in their order.
        table_optimizer: "adam" moves the rows of a batch alone (as `torch.optim.SparseAdam`); "adagrad", "sgd" and
            "rowwise_adagrad" (one sum of squares a row) step within the backward pass where the model allows it.
        table_rate: learning rate of the tables.
        dense_optimizer, dense_rate: "adam", "adagrad" or "sgd", and its rate, for everything else.
        final_rate: the share of both rates that is left at the end; they fall linearly from 1.
        spread: standard deviation of rows that are drawn, where the model's tables are on the device "meta".
        seed: of what is drawn.

    Raises:
        InputError: names the setting, what was seen and what it may be.
    """

    epochs: float = 1.0
    batch_rows: int = 1024
    table_optimizer: TableOptimizer = "adam"
    table_rate: float = 0.002
    dense_optimizer: str = "adam"
    dense_rate: float = 0.001
    final_rate: float = 1.0
    spread: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "table_rate", "dense_rate"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number; seen {value!r}.")
        if not 0.0 <= self.final_rate <= 1.0:
            raise InputError(f"final_rate must be a share from 0 to 1; seen {self.final_rate!r}.")
        if isinstance(self.batch_rows, bool) or not isinstance(self.batch_rows, int) or self.batch_rows < 1:
            raise InputError(f"batch_rows must be a whole number of at least 1; seen {self.batch_rows!r}.")
        kinds = {"table_optimizer": get_args(TableOptimizer), "dense_optimizer": ("adam", "adagrad", "sgd")}
        for name, known in kinds.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; use one of {', '.join(known)}.")
