"""Batches: slices of what is in memory, in the form a Task reads."""

import torch

from flyweight.zoo.batches import Batches


def example(size=4):
    ids = torch.arange(40, dtype=torch.int32).reshape(10, 4)
    target = torch.arange(10, dtype=torch.uint8) % 2
    return Batches({"user": 1, "history": 2, "item": 1}, ids, target, {"request": torch.arange(10) // 3}, size)


def test_batches_together_are_the_split():
    batches = list(example())
    assert [len(target) for _, target in batches] == [4, 4, 2]
    for name, column in (("user", slice(0, 1)), ("history", slice(1, 3)), ("item", slice(3, 4))):
        joined = torch.cat([inputs[name] for inputs, _ in batches])
        assert joined.dtype == torch.int64
        assert torch.equal(joined, example().ids[:, column].squeeze(1).long())
        assert torch.equal(example().column(name).long(), joined)
    assert torch.cat([target for _, target in batches]).tolist() == [0.0, 1.0] * 5


def test_batches_can_be_read_twice():
    batches = example()
    assert [target.tolist() for _, target in batches] == [target.tolist() for _, target in batches]
    assert len(batches) == 3


def test_extra_keys_are_given_only_when_asked_for():
    inputs, _ = next(iter(example()))
    assert set(inputs) == {"user", "history", "item", "request"}
    inputs, _ = next(iter(example().with_keys()))
    assert set(inputs) == {"user", "history", "item"}


def test_head_and_size_change_nothing_else():
    inputs, target = next(iter(example().head(3).of_size(99)))
    assert len(target) == 3
    assert inputs["request"].tolist() == [0, 0, 0]
