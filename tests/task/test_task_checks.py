"""A task checks itself when built: each kind of bad input, by the words of its error."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import flyweight as fw
from small_tasks import FIELDS, Ranker, batches, seeded, world

Columns = dict[str, Any]


def task_of(change: Callable[[Columns, Tensor], tuple[Columns, Tensor]] | None = None, **settings: Any) -> fw.Task:
    """A good task, but for what `change` does to the validation columns and targets."""
    good = batches(*world(200, 1), size=50)
    columns, target = world(200, 2)
    validation = batches(*(change(columns, target) if change else (columns, target)), size=50)
    given: dict[str, Any] = {"model": seeded(Ranker), "inputs": FIELDS, "train": good, "test": good}
    return fw.Task(**{**given, "validation": validation, **settings})


def set_value(name: str, row: int, value: float) -> Callable[[Columns, Tensor], tuple[Columns, Tensor]]:
    def change(columns: Columns, target: Tensor) -> tuple[Columns, Tensor]:
        columns[name][row] = value
        return columns, target

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_value("price", 60, float("nan")), ["validation batch 1", "'price'", "1 NaN or infinite"]),
        (set_value("item_id", 120, 400), ["validation batch 2", "'item_id'", "id 400", "rows=400", "0 to 399"]),
        (set_value("item_id", 199, 4000), ["batch 3", "id 4000"]),
        (set_value("user_id", 0, -1), ["validation batch 0", "'user_id'", "negative id -1"]),
        (lambda c, y: ({**c, "user_id": c["user_id"].float()}, y), ["'user_id'", "float32", "whole numbers"]),
        (lambda c, y: ({**c, "user_id": c["user_id"] > 3}, y), ["'user_id'", "torch.bool"]),
        (lambda c, y: ({"user_id": c["user_id"], "price": c["price"]}, y), ["lacks input 'item_id'", "price"]),
        (lambda c, y: ({**c, "week": c["user_id"]}, y), ["'week'", "does not name", "Field"]),
        (lambda c, y: (c, y * float("nan")), ["target", "50 NaN"]),
        (lambda c, y: (c, torch.zeros_like(y)), ["All 200 targets", "validation", "both classes"]),
        (lambda c, y: (c, y + 1), ["0/1 targets", "2.0"]),
        (lambda c, y: (c, torch.stack([y, y], 1)), ["one target and one score a row", "(200, 2)"]),
        (lambda c, y: (c, y[:, None, None]), ["(200, 1, 1)"]),
    ],
)
def test_bad_data_is_named(change: Any, words: list[str]) -> None:
    with pytest.raises(fw.InputError) as error:
        task_of(change)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


class Weird(nn.Module):
    def __init__(self, give: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.give, self.scale = give, nn.Parameter(torch.ones(1))

    def forward(self, user_id: Tensor, item_id: Tensor, price: Tensor) -> Any:
        return self.give(price * self.scale - 0.5)


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda x: {"score": x}, ["returned dict", "one tensor"]),
        (lambda x: (x, x), ["returned tuple"]),
        (lambda x: x.mean(), ["shape ()", "50 targets"]),
        (lambda x: x[:10], ["shape (10,)", "50 targets"]),
        (lambda x: x @ torch.ones(7), ["failed on a batch of", "price float32(50,)"]),
        (lambda x: torch.stack([x, x], 1), ["one target and one score a row", "(50, 2)"]),
    ],
)
def test_model_that_gives_something_else_is_refused(give: Any, words: list[str]) -> None:
    with pytest.raises(fw.InputError) as error:
        task_of(model=Weird(give))
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weight_that_is_not_finite_is_named(value: float) -> None:
    model = seeded(Ranker)
    with torch.no_grad():
        model.get_parameter("item.weight")[3, :2] = value
    with pytest.raises(fw.InputError, match=r"'item.weight' holds 2 NaN or infinite values of 3200"):
        task_of(model=model)


def test_buffer_that_is_not_finite_is_named() -> None:
    model = nn.Sequential()
    model.add_module("inner", seeded(Ranker))
    model.register_buffer("mean", torch.tensor([1.0, float("inf")]))
    with pytest.raises(fw.InputError, match="'mean' holds 1 NaN"):
        task_of(model=model)


def test_input_the_model_does_not_take_is_named() -> None:
    def renamed(columns: Columns, target: Tensor) -> tuple[Columns, Tensor]:
        return {**columns, "colour": columns["price"]}, target

    data = batches(*renamed(*world(100, 1)))
    with pytest.raises(fw.InputError, match=r"does not take these inputs .*colour.*forward\(\)"):
        fw.Task(
            model=seeded(Ranker), inputs={**FIELDS, "colour": fw.Field()}, train=data, validation=data, test=data
        )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train": []}, ["train split is empty", "at least one batch"]),
        ({"validation": []}, ["validation split is empty"]),
        ({"test": []}, ["test split is empty"]),
        ({"test": [({name: values[:0] for name, values in world(9, 0)[0].items()}, torch.zeros(0))]}, ["is empty"]),
        ({"train": iter([])}, ["train is an iterator", "only once", "DataLoader"]),
        ({"test": 7}, ["test must be iterable", "int"]),
        ({"validation": [torch.zeros(3)]}, ["validation batch 0", "(dict of inputs, target)", "Tensor"]),
        ({"model": len}, ["torch.nn.Module", "builtin_function"]),
        ({"inputs": {}}, ["inputs is empty"]),
        ({"inputs": {"user_id": 60}}, ["inputs['user_id'] must be a Field", "int"]),
        ({"metric": "acuracy"}, ["Unknown metric 'acuracy'", "Did you mean 'accuracy'", "ndcg@k"]),
        ({"metric": 3}, ["metric must be a name", "int"]),
        ({"metric": "gauc"}, ["'gauc' needs Task(group=...)"]),
        ({"metric": "ndcg@10"}, ["'ndcg@10'", "Task(group=...)"]),
        ({"group": "week"}, ["lacks the group 'week'"]),
        ({"group": "price"}, ["group 'price' must be whole numbers", "float32"]),
        ({"output": "logits"}, ["output 'logits' is unknown", "probability"]),
    ],
)
def test_bad_arguments_are_named(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(fw.InputError) as error:
        task_of(**settings)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_split_of_one_group_is_refused() -> None:
    def of_user_3(columns: Columns, target: Tensor) -> tuple[Columns, Tensor]:
        return {**columns, "user_id": torch.full_like(columns["user_id"], 3)}, target

    with pytest.raises(fw.InputError, match=r"validation split are in one group, 'user_id' = 3; .* at least two"):
        task_of(of_user_3, group="user_id")


def test_lone_numbers_are_refused() -> None:
    columns, target = world(1, 0)
    one = ({name: values[0] for name, values in columns.items()}, target)
    with pytest.raises(fw.InputError, match="'user_id' is a single number"):
        task_of(train=[one])
    with pytest.raises(fw.InputError, match="target is a single number"):
        task_of(train=[(columns, target[0])])


def test_empty_batches_are_left_out() -> None:
    columns, target = world(100, 3)
    nothing = ({name: values[:0] for name, values in columns.items()}, target[:0])
    task = task_of(validation=[nothing, (columns, target), nothing])
    assert [len(rows) for _, rows, _ in task.batches("validation")] == [100]


class Rows(Dataset[Any]):
    def __init__(self, rows: int, seed: int) -> None:
        self.columns, self.target = world(rows, seed)

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, row: int) -> Any:
        return {name: values[row] for name, values in self.columns.items()}, self.target[row]


@pytest.mark.parametrize("generator", [None, torch.Generator()])
def test_shuffling_loader_gives_the_same_rows_on_every_pass(generator: torch.Generator | None) -> None:
    loader = DataLoader(Rows(200, 5), batch_size=64, shuffle=True, generator=generator)
    torch.manual_seed(11)
    task = task_of(validation=loader, test=loader)
    assert torch.initial_seed() == 11
    model = seeded(Ranker)
    first, second = task.scores("validation"), task.scores("validation", model)
    assert np.array_equal(first.targets, second.targets)
    assert np.allclose(first.outputs, second.outputs)
    assert not np.array_equal(first.targets, Rows(200, 5).target.numpy())


def test_callers_random_numbers_are_left_alone() -> None:
    loader = DataLoader(Rows(200, 5), batch_size=64, shuffle=True)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    task = task_of(train=loader)
    for _ in task.batches("train"):
        pass
    assert torch.equal(torch.rand(4), expected)


def test_split_in_another_order_on_every_pass_is_refused() -> None:
    class Restless:
        def __iter__(self) -> Iterator[Any]:
            columns, target = world(50, int(np.random.default_rng().integers(10**9)))
            yield columns, target

    with pytest.raises(fw.InputError, match=r"validation split gives other rows on a second pass.*compared row by row"):
        task_of(validation=Restless())


def test_model_is_never_changed() -> None:
    model = seeded(Ranker)
    model.mlp[0].eval()
    model.user.weight.requires_grad_(False)
    model.item.register_forward_hook(lambda *_: None)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    task = task_of(model=model)
    task.scores("test")
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model.user.weight.requires_grad
    assert model.item.weight.requires_grad
    assert len(model.item._forward_hooks) == 1
    assert all(parameter.grad is None for parameter in model.parameters())


def test_inputs_as_numpy_and_targets_in_a_column_are_taken() -> None:
    columns, target = world(100, 1)
    data = [({name: values.numpy() for name, values in columns.items()}, target[:, None])]
    assert task_of(train=data, validation=data, test=data).scores("test").targets.shape == (100,)
