"""These tests run on one thread, on a network that tells handwritten digits apart."""

import copy

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import flyweight as fw


@pytest.fixture(autouse=True, scope="module")
def _quiet(one_thread: None) -> None:
    """Take the shared fixture for every module here."""


class Digits(nn.Module):
    """64 pixels through batch norm and dropout to ten logits."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(64, hidden), nn.BatchNorm1d(hidden)
        self.blocks = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(3))
        self.dropout = nn.Dropout(0.1)
        self.last = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        for block in self.blocks:
            x = x + F.relu(block(x))
        return self.last(self.dropout(x))


@pytest.fixture(scope="session")
def trained_digits() -> fw.Task:
    """A trained network: about 97% of 400 validation digits right."""
    pixels, digit = load_digits(return_X_y=True)
    order = torch.randperm(len(digit), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(pixels / 16, dtype=torch.float32)[order], torch.tensor(digit)[order]

    def batches(start: int, stop: int) -> list[tuple[dict[str, Tensor], Tensor]]:
        return [({"x": x[at : min(at + 64, stop)]}, y[at : min(at + 64, stop)]) for at in range(start, stop, 64)]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, train = Digits(), batches(0, 1000)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
        for _ in range(12):
            for inputs, target in train:
                optimizer.zero_grad()
                F.cross_entropy(model(**inputs), target).backward()
                optimizer.step()
    optimizer.zero_grad()
    return fw.Task(
        model=model.eval(),
        inputs={"x": fw.Field()},
        train=train,
        validation=batches(1000, 1400),
        test=batches(1400, 1797),
        metric="accuracy",
    )


@pytest.fixture
def digits(trained_digits: fw.Task) -> fw.Task:
    """The task around a copy of the trained network."""
    return trained_digits.with_model(copy.deepcopy(trained_digits.model))


@pytest.fixture
def damaged(digits: fw.Task) -> nn.Module:
    """The network with half of a layer's outputs gone and noise on another."""
    model = copy.deepcopy(digits.model)
    with torch.no_grad():
        model.blocks[0].weight[::2] = 0
        model.first.weight += 0.25 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    return model
