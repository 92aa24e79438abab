"""The teacher is asked once a batch, and again where rows change."""

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.distillation.teacher import Teacher


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


BATCHES = [{"x": torch.arange(4.0) + 0.001 * number} for number in range(3)]


@pytest.mark.parametrize(("exact", "memory"), [(1 << 20, 1 << 20), (16, 1 << 20), (16, 20), (1 << 20, 0)])
def test_outputs_are_computed_once_wherever_they_are_kept(exact: int, memory: int) -> None:
    teacher = Teacher(Twice(), exact_bytes=exact, memory_bytes=memory)
    for _ in range(3):
        for number, inputs in enumerate(BATCHES):
            said = teacher.outputs(number, inputs, 4)
            assert said.dtype == torch.float32
            torch.testing.assert_close(said, 2 * inputs["x"], rtol=5e-4, atol=0)
    assert teacher.asked == 3
    assert teacher.changed == 0
    teacher.close()


def test_other_rows_on_a_later_pass_are_asked_about_anew() -> None:
    teacher = Teacher(Twice())
    teacher.outputs(0, BATCHES[0], 4)
    assert teacher.outputs(0, BATCHES[1], 4)[0].item() == pytest.approx(0.002)
    assert teacher.changed == 1


def test_values_beyond_half_precision_stay_exact() -> None:
    teacher = Teacher(Twice(), exact_bytes=0)
    for _ in range(2):
        assert teacher.outputs(0, {"x": torch.tensor([1e6])}, 1).item() == 2e6


def test_a_teacher_with_nan_is_refused() -> None:
    with pytest.raises(fw.InputError, match="The teacher gives 1 NaN or infinite outputs of 2"):
        Teacher(Twice()).outputs(0, {"x": torch.tensor([1.0, float("nan")])}, 2)
