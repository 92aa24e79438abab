"""What a step lowers: a share of the true labels' loss and a share of the distance to the teacher."""

from torch import Tensor, nn

from flyweight.distillation.losses import default_distill_loss, outputs_loss
from flyweight.distillation.teacher import Teacher
from flyweight.distillation.training import Training
from flyweight.errors import InputError
from flyweight.task.scores import call_model
from flyweight.task.task import Task

#: A batch, or a part of one: inputs, targets, groups or None, the teacher's outputs or None.
Part = tuple[dict[str, Tensor], Tensor, Tensor | None, Tensor | None]


class Objective:
    """The loss of a batch.

    Args:
        task: says the labels' loss and what the outputs are.
        training: the shares, and the loss by name.
        teacher: None where the labels alone are learned.
    """

    def __init__(self, task: Task, training: Training, teacher: Teacher | None) -> None:
        output = task.output or "logit"
        self.task, self.training, self.teacher = task, training, teacher
        self.name = training.loss or default_distill_loss(output)
        self._distance = outputs_loss(self.name, output, training.temperature)
        self.by_list = self.name in ("pairwise", "listwise") and output != "columns"

    def part(self, place: int, inputs: dict[str, Tensor], target: Tensor, group: Tensor | None) -> Part:
        """Return a batch with what the teacher says of it; `place` is its number in the split."""
        said = None if self.teacher is None else self.teacher.outputs(place, inputs, len(target))
        return inputs, target, group, said

    def parameters(self) -> tuple[Tensor, ...]:
        """Return what is trained beside the model and thrown away afterwards."""
        return ()

    def loss(self, model: nn.Module, part: Part) -> Tensor:
        """Return the loss of a batch or of a part of it, a scalar.

        Raises:
            InputError: student and teacher give outputs of different shapes.
        """
        inputs, target, group, said = part
        outputs = call_model(model, inputs, len(target))
        alpha = self.training.alpha
        total = outputs.new_zeros(())
        if said is not None and alpha < 1:
            check_shapes(outputs, said)
            total = total + (1 - alpha) * self._distance(outputs, said.to(outputs), group)
        if alpha > 0 or said is None:
            total = total + (alpha if said is not None else 1.0) * self.task.row_loss(outputs, target).mean()
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
