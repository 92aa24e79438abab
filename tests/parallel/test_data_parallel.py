"""Codebooks and dense layers recovered by two processes: what one does with the same rows in a step."""

from functools import partial

import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.distillation.recover import recover
from flyweight.parallel.data_parallel import recover_by_ranks
from small_tasks import Ranker, seeded, trained_task

SETTINGS = {"epochs": 3, "lr": 0.02, "seed": 1}


def pair(size: int = 256) -> tuple[fw.Task, nn.Module]:
    """A task in batches of one size, and its model with coded tables and the last layer gone astray."""
    whole = trained_task(seeded(Ranker))
    columns = {name: torch.cat([one[name] for one, _ in whole.train]) for name in whole.inputs}
    target = torch.cat([one for _, one in whole.train])
    train = [
        ({name: value[at : at + size] for name, value in columns.items()}, target[at : at + size])
        for at in range(0, 3_584, size)
    ]
    task = fw.Task(whole.model, whole.inputs, train, whole.validation, whole.test)
    coded = fw.EncodeTables(bits_per_row=12).apply(task).model
    with torch.no_grad():
        coded.mlp[2].weight.mul_(-0.5)
    return task, coded


def test_two_processes_recover_as_one_does(one_thread: None) -> None:
    found = recover_by_ranks(pair, ranks=2, batch_rows=512, **SETTINGS)
    task, start = pair(512)
    alone = recover(task, start, batch_rows=512, **SETTINGS)
    assert found.before.metric == pytest.approx(alone.before.metric)
    assert found.after.metric == pytest.approx(alone.after.metric, abs=1e-4)
    assert found.after.metric > found.before.metric + 0.02
    own = dict(found.model.named_parameters())
    for name, value in alone.model.named_parameters():
        torch.testing.assert_close(own[name].float(), value.float(), rtol=2e-3, atol=2e-3)
    assert all(torch.equal(value, dict(start.named_buffers())[name]) for name, value in found.model.named_buffers())
    assert len(found.peaks) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ranks": 0}, "ranks must be a whole number of at least 1; seen 0"),
        ({"batch_rows": 3}, "batch_rows=3 leaves less than 2 rows for each of 2 processes"),
        ({"tables": True}, "Tables are trained over processes by `train_sharded`"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(given: dict[str, int], said: str) -> None:
    with pytest.raises(fw.InputError, match=said):
        recover_by_ranks(partial(pair, 8), **{"ranks": 2, "epochs": 1, **given})
