"""The learning rate that a distillation chose, given: the very weights, whatever was drawn before."""

import torch
from torch import Tensor, nn

import flyweight as fw


class Noisy(nn.Module):
    """Dropout before a batch norm, whose statistics then hang on what is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.2), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def test_a_given_rate_trains_the_weights_of_the_run_that_chose_it(digits: fw.Task) -> None:
    torch.manual_seed(0)
    student = Noisy()
    found = fw.Distill(epochs=6, student=student).apply(digits)
    (training,) = found.done
    assert training["best_epoch"] > 0
    torch.manual_seed(2)
    given = fw.Distill(epochs=6, student=student, lr=training["lr"]).apply(digits)
    one, other = found.model.state_dict(), given.model.state_dict()
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []
