"""Partitions: what they say, what they refuse, and that compressed models are cut too."""

import re

import pytest
import torch
from staged_tasks import STEPS, TASKS, compressed, mlp
from torch import Tensor, nn

import flyweight as fw
from flyweight.graph.trace import trace
from flyweight.parallel.balance import Link
from flyweight.parallel.cuts import find_cuts
from flyweight.parallel.partition import partition
from flyweight.parallel.split import stage_module
from small_tasks import splits

FAST = Link(1e12, 0.0)


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    pass


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_stages_cover_the_model_in_order(name: str, stages: int) -> None:
    found = partition(TASKS[name](), stages, link=FAST)
    assert [one.first for one in found.stages] == [0, *(one.last + 1 for one in found.stages[:-1])]
    assert found.stages[-1].sent == 0
    assert all(one.sent > 0 for one in found.stages[:-1])
    assert 1.0 <= found.speedup <= stages + 1e-9
    assert f"{stages} stages" in str(found)


@pytest.mark.parametrize("name", STEPS)
def test_every_cut_of_a_compressed_model_gives_the_whole(name: str) -> None:
    task = compressed(name)
    inputs, _, _ = next(task.batches("validation"))
    traced = trace(task.model, inputs)
    cuts = find_cuts(traced).legal
    assert cuts
    with torch.no_grad():
        wanted = traced(**inputs)
        for cut in cuts:
            first, second = stage_module(traced, None, cut), stage_module(traced, cut, None)
            sent = first(**{key: inputs[key] for key in first.reads})
            found = second(*sent, **{key: inputs[key] for key in second.reads})
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


class Dominated(nn.Module):
    """One large layer between two small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.large, self.last = nn.Linear(1, 2_000), nn.Linear(2_000, 2_000), nn.Linear(2_000, 1)

    def forward(self, price: Tensor) -> Tensor:
        return self.last(self.large(self.first(price.unsqueeze(1)))).squeeze(1)


def prices_alone(model: nn.Module) -> fw.Task:
    data = {name: [({"price": columns["price"]}, y) for columns, y in split] for name, split in splits().items()}
    return fw.Task(model=model, inputs={"price": fw.Field(role="candidate")}, **data)


def test_a_layer_that_dominates_is_named_with_its_share() -> None:
    said = str(partition(prices_alone(Dominated()), 3, link=FAST))
    share = re.search(r"large alone takes (\d+)% of the time and cannot be divided: no number of stages is", said)
    times = re.search(r"is more than (\d\.\d\d) times as fast", said)
    assert share, said
    assert times, said
    assert float(times[1]) == pytest.approx(100 / float(share[1]), abs=0.02)  # Amdahl's law


def test_where_sending_costs_more_than_it_saves_the_best_cut_sends_least() -> None:
    cuts = find_cuts(partition(mlp(), 1).traced).legal
    found = partition(mlp(), 2, link=Link(1e4, 0.0, sender=1.0, receiver=1.0))
    assert found.cuts[0].bytes == min(cut.bytes for cut in cuts)
    assert found.speedup < 1


def test_more_stages_than_cuts_are_refused_with_the_reasons() -> None:
    with pytest.raises(fw.InputError, match=r"50 stages need 49 places to cut, and the model has \d+ between its"):
        partition(mlp(), 50)


@pytest.mark.parametrize("stages", [0, -1, 1.5, True])
def test_stages_are_a_positive_whole_number(stages: int) -> None:
    with pytest.raises(fw.InputError, match="stages must be a whole number of at least 1"):
        partition(mlp(), stages)


class OfTheBatch(nn.Module):
    """A model whose rows hang on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 4), nn.Linear(4, 1)

    def forward(self, price: Tensor) -> Tensor:
        x = self.first(price.unsqueeze(1))
        return self.last(x - x.mean(0)).squeeze(1)


def test_rows_that_hang_on_each_other_are_refused() -> None:
    torch.manual_seed(0)  # by chance weights may make so little of it that only the stages show it
    with pytest.raises(fw.InputError, match=r"other rows of (their|its) batch"):
        partition(prices_alone(OfTheBatch()), 2)


def test_a_simulation_of_many_micro_batches_nears_what_the_slowest_stage_allows() -> None:
    found = partition(prices_alone(Dominated()), 2, link=FAST)
    whole = sum(one.seconds for one in found.stages)
    seconds = found.simulate(1_000).seconds / 1_000
    assert whole / seconds == pytest.approx(found.speedup, rel=0.02)
