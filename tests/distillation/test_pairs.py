"""New pairs are rows that could be: crossed fields are looked up, or the row is dropped."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.distillation.pairs import find_recombination
from flyweight.distillation.recover import recover

USERS, ITEMS, KINDS = 20, 30, 5
FIELDS = {
    "user": fw.Field(role="request", rows=USERS),
    "age": fw.Field(role="request", rows=3),
    "item": fw.Field(role="candidate", rows=ITEMS),
    "kind": fw.Field(role="candidate", rows=KINDS),
    "shelf": fw.Field(role="candidate", rows=7),
    "user_x_kind": fw.Field(role="candidate", rows=USERS * KINDS + 1),
    "price": fw.Field(role="candidate"),
}


def price_of(age: Tensor, kind: Tensor) -> Tensor:
    return age * 10.0 + kind


def columns(rows: int, seed: int, *, known: bool) -> dict[str, Tensor]:
    """Rows in which user 0 never meets kind 0 in training; such a pair has id 0, all others one of their own."""
    drawn = torch.Generator().manual_seed(seed)
    user, item = (torch.randint(most, (rows,), generator=drawn) for most in (USERS, ITEMS))
    shelf = torch.randint(7, (rows,), generator=drawn)
    kind = item % KINDS
    if known:
        fine = (user > 0) | (kind > 0)
        user, item, kind, shelf = user[fine], item[fine], kind[fine], shelf[fine]
    age = user % 3
    cross = torch.where((user == 0) & (kind == 0), 0, 1 + (user * KINDS + kind) * 7 % (USERS * KINDS))
    return {"user": user, "age": age, "item": item, "kind": kind, "shelf": shelf, "user_x_kind": cross,
            "price": price_of(age, kind)}  # fmt: skip


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(one.rows or 1, 4) for name, one in FIELDS.items()})
        self.last = nn.Linear(4, 1)

    def forward(self, **fields: Tensor) -> Tensor:
        rows = [self.tables[name](fields[name]) for name in FIELDS if name != "price"]
        return self.last(torch.stack(rows).sum(0)).squeeze(1)


def task_of(**changed: Any) -> fw.Task:
    splits = {}
    for seed, (name, rows) in enumerate({"train": 6_000, "validation": 4_000, "test": 1_000}.items()):
        made = columns(rows, seed, known=name == "train")
        target = torch.randint(2, (len(made["user"]),), generator=torch.Generator().manual_seed(seed)).float()
        splits[name] = [({n: c[at : at + 512] for n, c in made.items()}, target[at : at + 512])
                        for at in range(0, len(target), 512)]  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fw.Task(**{"model": Sum(), "inputs": FIELDS, **splits, **changed})


def test_crosses_are_found_with_what_determines_them() -> None:
    found = find_recombination(task_of())
    assert {(cross.name, cross.request, cross.candidate) for cross in found.crosses} == {
        ("user_x_kind", "user", "kind"),
        ("price", "age", "kind"),
    }
    assert found.candidate == ("item", "kind", "shelf")
    assert {cross.name: cross.unknown for cross in found.crosses}["user_x_kind"] == 0


def test_new_rows_are_consistent_and_new() -> None:
    task = task_of()
    inputs = task.train[0][0]
    made, asker = find_recombination(task).draw(inputs, 2_000, torch.Generator().manual_seed(0))
    assert len(asker) == 2_000
    assert torch.equal(made["user"], inputs["user"][asker])
    assert torch.equal(made["age"], made["user"] % 3)
    assert torch.equal(made["kind"], made["item"] % KINDS)
    assert torch.equal(made["price"], price_of(made["age"], made["kind"]))
    expected = 1 + (made["user"] * KINDS + made["kind"]) * 7 % (USERS * KINDS)
    unseen = (made["user"] == 0) & (made["kind"] == 0)
    assert bool(unseen.any())
    assert torch.equal(made["user_x_kind"], torch.where(unseen, 0, expected))
    old = set(zip(inputs["user"].tolist(), inputs["item"].tolist(), strict=True))
    new = set(zip(made["user"].tolist(), made["item"].tolist(), strict=True))
    assert len(new - old) > 200  # of 600 pairs there are


def test_pairs_without_a_common_unknown_value_are_dropped() -> None:
    task = task_of()
    for inputs, _ in task.validation:  # now unseen pairs have different ids
        unseen = (inputs["user"] == 0) & (inputs["kind"] == 0)
        inputs["user_x_kind"][unseen] = inputs["item"][unseen]
    made, asker = find_recombination(task).draw(task.train[0][0], 2_000, torch.Generator().manual_seed(0))
    assert not bool(((made["user"] == 0) & (made["kind"] == 0)).any())
    assert 1_900 < len(asker) < 2_000


def test_the_same_generator_draws_the_same_rows() -> None:
    task = task_of()
    found, inputs = find_recombination(task), task.train[0][0]
    one, two = (found.draw(inputs, 50, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in FIELDS)


def test_inputs_without_roles_are_refused(digits: fw.Task) -> None:
    with pytest.raises(fw.InputError, match=r'role "request" or "candidate"; seen x: sample'):
        recover(digits, digits.model, epochs=1, resampled=0.5)


def test_new_rows_are_judged_by_the_teacher_alone() -> None:
    """Half of every batch is new: the student sees twice the rows, and learns from labels of the old ones only."""
    task = task_of()
    seen: list[int] = []

    class Watched(Sum):
        def forward(self, **fields: Tensor) -> Tensor:
            if self.training or torch.is_grad_enabled():
                seen.append(len(fields["user"]))
            return super().forward(**fields)

    labels: list[int] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.requires_grad:
            labels.append(len(outputs))
        return nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")

    changed = fw.Task(task.model, task.inputs, task.train, task.validation, task.test, loss=loss, output="logit")
    recovered = recover(changed, Watched(), epochs=1, resampled=0.5, alpha=0.5)
    assert len(labels) == len(task.train)
    assert sum(labels) == sum(len(target) for _, target in task.train)
    assert sum(seen) == 2 * sum(labels)
    assert recovered.after.loss < recovered.before.loss or recovered.after.epoch == 0
