"""Settings are checked when they are made, and the message says what they may be."""

from typing import Any

import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.distillation.distill import Distill
from flyweight.distillation.student import Thinner


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "epochs must be a positive number; seen 0"),
        ({"epochs": float("nan")}, "epochs must be a positive number"),
        ({"epochs": True}, "epochs must be a positive number; seen True"),
        ({"lr": -1.0}, "lr must be a positive number; seen -1.0"),
        ({"alpha": 1.5}, "alpha must be a share from 0"),
        ({"temperature": 0}, "temperature must be a positive number"),
        ({"resampled": 0.95}, "resampled must be a share from 0 to 0.9; seen 0.95"),
        ({"loss": "kl"}, "loss 'kl' is unknown; use one of soft, score, pairwise, listwise"),
        ({"batch_rows": 1}, "batch_rows must be a whole number of at least 2"),
        ({"student": "small"}, "student must be a torch.nn.Module, a Thinner.*seen str"),
        ({"features": ["a"]}, "features must map names.*seen list"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(fw.InputError, match=words):
        Distill(**{"epochs": 1.0, **settings})


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"width": 0}, r"width must be a share in \(0, 1\]"), ({"depth": 2}, "depth"), ({"width": 1}, "the model itself")],
)
def test_a_thinner_student_has_shares(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(fw.InputError, match=words):
        Thinner(**settings)


def test_a_step_is_a_step() -> None:
    assert isinstance(Distill(epochs=0.2), fw.Step)


def test_a_student_of_another_shape_is_refused_with_both_shapes(digits: fw.Task) -> None:
    class Wide(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    with pytest.raises(fw.InputError, match=r"returns \(64, 11\) where its teacher returns \(64, 10\)"):
        Distill(epochs=1, student=Wide(64, 11)).apply(digits)
