"""What a step lowers: a share of the true labels' loss and a share of the distance to the teacher."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flyweight.distillation.features import FeatureMatch, tapped
from flyweight.distillation.losses import default_distill_loss, outputs_loss
from flyweight.distillation.pairs import Recombination
from flyweight.distillation.passes import cut
from flyweight.distillation.teacher import Teacher
from flyweight.distillation.training import Training
from flyweight.errors import InputError
from flyweight.task.batches import Batch
from flyweight.task.scores import call_model
from flyweight.task.task import Task


@dataclass(frozen=True, eq=False)
class Part:
    """A batch, or a piece of one: labelled rows, then `extra` rows that only the teacher has judged.

    Args:
        inputs: of all rows.
        target: of the labelled rows.
        group: of all rows, or None.
        said: the teacher's outputs for all rows, or None.
        extra: rows without a label.
    """

    inputs: dict[str, Tensor]
    target: Tensor
    group: Tensor | None
    said: Tensor | None
    extra: int = 0

    def pieces(self, most: int, seed: int) -> list["Part"]:
        """Return the part in pieces of up to `most` labelled rows, each with its share of the extra ones."""
        rows = len(self.target)
        if rows <= most:
            return [self]
        labelled = cut(rows, most, seed)
        extra = torch.arange(rows, rows + self.extra).tensor_split(len(labelled))
        return [self._piece(own, further) for own, further in zip(labelled, extra, strict=True)]

    def shards(self, count: int) -> list["Part"]:
        """Return the part in so many pieces, in the order of its rows; some have none where rows are few."""
        rows = len(self.target)
        labelled = torch.arange(rows).tensor_split(count)
        extra = torch.arange(rows, rows + self.extra).tensor_split(count)
        return [self._piece(own, further) for own, further in zip(labelled, extra, strict=True)]

    def _piece(self, own: Tensor, further: Tensor) -> "Part":
        places = torch.cat([own, further])
        return Part(
            {name: value[places] for name, value in self.inputs.items()},
            self.target[own],
            None if self.group is None else self.group[places],
            None if self.said is None else self.said[places],
            len(further),
        )


class Objective:
    """The loss of a batch.

    Args:
        task: says the labels' loss and what the outputs are.
        training: the shares, and the loss by name.
        teacher: None where the labels alone are learned.
        pairs: how new rows are put together, or None.
        features: what inside the models is matched, or None.
    """

    def __init__(
        self,
        task: Task,
        training: Training,
        teacher: Teacher | None,
        pairs: Recombination | None = None,
        features: FeatureMatch | None = None,
    ) -> None:
        output = task.output or "logit"
        self.task, self.training, self.teacher = task, training, teacher
        self.pairs, self.features = pairs, features
        name = training.loss or default_distill_loss(output)
        self._distance = outputs_loss(name, output, training.temperature)
        #: Whether rows are compared within their groups, so that a batch must stay whole.
        self.by_list = name in ("pairwise", "listwise") and output != "columns" and task.group is not None

    def parameters(self) -> tuple[Tensor, ...]:
        """Return what is trained beside the model and thrown away afterwards."""
        return () if self.features is None else tuple(self.features.parameters())

    def part(self, place: int, batch: Batch, seed: int) -> Part:
        """Return a batch with what the teacher says of it; `place` is its number in the split."""
        inputs, target, group = batch
        if self.teacher is None:
            return Part(inputs, target, group, None)
        said = self.teacher.outputs(place, inputs, len(target))
        whole = Part(inputs, target, group, said)
        return whole if self.pairs is None else self._with_pairs(whole, self.pairs, self.teacher, seed)

    def _with_pairs(self, part: Part, pairs: Recombination, teacher: Teacher, seed: int) -> Part:
        """Add new rows, so that they are the share of the batch that was asked for."""
        assert part.said is not None
        share = self.training.resampled
        count = round(len(part.target) * share / (1 - share))
        made, asker = pairs.draw(part.inputs, count, torch.Generator().manual_seed(seed))
        if not len(asker):
            return part
        said = teacher.ask(made, len(asker))
        return Part(
            {name: torch.cat([value, made[name].to(value.dtype)]) for name, value in part.inputs.items()},
            part.target,
            None if part.group is None else torch.cat([part.group, part.group[asker]]),
            torch.cat([part.said, said]),
            len(asker),
        )

    def loss(self, model: nn.Module, part: Part) -> Tensor:
        """Return the loss of a batch or of a piece of it, a scalar.

        Raises:
            InputError: student and teacher give outputs of different shapes.
        """
        rows = len(part.target) + part.extra
        alpha = self.training.alpha if part.said is not None else 1.0
        if self.features is None or alpha == 1:
            outputs = call_model(model, part.inputs, rows)
            total = outputs.new_zeros(())
        else:
            with tapped(self.features.student, tuple(self.features.names)) as own:
                outputs = call_model(model, part.inputs, rows)
            wanted = self.features.wanted(part.inputs)
            total = (1 - alpha) * self.features.distance(own, wanted).to(outputs.device)
        if part.said is not None and alpha < 1:
            check_shapes(outputs, part.said)
            total = total + (1 - alpha) * self._distance(outputs, part.said.to(outputs), part.group)
        if alpha > 0:
            total = total + alpha * self.task.row_loss(outputs[: len(part.target)], part.target).mean()
        return total


def check_shapes(student: Tensor, teacher: Tensor) -> None:
    """Refuse a student whose outputs are not like its teacher's.

    Raises:
        InputError: with both shapes.
    """
    if student.shape != teacher.shape:
        raise InputError(
            f"The student returns {tuple(student.shape)} where its teacher returns {tuple(teacher.shape)}; "
            "give a student with the same outputs, or none, and one is derived from the model."
        )
