"""What each layer may become and how far that moves outputs: against formulas, and the truth where it is linear."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.planning.search.layer_menu import RANKS, LayerItem, LayerOption, layer_menu, rounded
from flyweight.planning.search.layer_shifts import LayerShifts

ROWS, WIDE, MIDDLE = 64, 24, 16


class Line(nn.Module):
    """Two matrices with nothing between them: the output is linear in each alone."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDE, MIDDLE), nn.Linear(MIDDLE, outputs)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.first(x))
        return found.squeeze(1)


class Columns(Line):
    """Three scores a row."""

    def __init__(self) -> None:
        super().__init__(outputs=3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.first(x))
        return found


class Picture(nn.Module):
    """A convolution whose places are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.first(x).mean((2, 3)))
        return found.squeeze(1)


def task_of(model: nn.Module, x: Tensor, **settings: Any) -> fw.Task:
    target = (torch.arange(len(x)) % 2).float()
    rows = [({"x": x}, target)]
    return fw.Task(model, {"x": fw.Field()}, rows, rows, rows, **settings)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def option(change: Tensor | None) -> LayerOption:
    return LayerOption("any", None, 32, 0, 0, 0.0, change)


def shifts_of(task: fw.Task, *items: LayerItem) -> list[Tensor]:
    inputs, target, _ = next(task.batches("validation"))
    return LayerShifts(task, task.model.eval(), items).shifts(inputs, target, 0)


def test_shift_of_a_layer_is_the_gradient_times_what_its_outputs_change_by() -> None:
    model, x = Line(), drawn(ROWS, WIDE)
    task = task_of(model, x)
    change = 0.3 * drawn(MIDDLE, WIDE)
    (found,) = shifts_of(task, LayerItem("first", (option(None), option(change), option(2 * change))))
    with torch.no_grad():
        moved = x @ change.T @ model.last.weight[0]  # (rows,)
    torch.testing.assert_close(found, torch.stack([torch.zeros(ROWS), moved, 2 * moved]))


@pytest.mark.parametrize("name", ["first", "last"])
@pytest.mark.parametrize("make", [Line, Picture])
def test_shift_is_the_true_change_where_the_output_is_linear_in_the_layer(make: Any, name: str) -> None:
    model = make()
    task = task_of(model, drawn(ROWS, WIDE) if make is Line else drawn(ROWS, 1, 6, 6))
    weight = model.get_submodule(name).weight
    change = 0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    before = task.scores("validation").outputs
    (found,) = shifts_of(task, LayerItem(name, (option(change),)))
    with torch.no_grad():
        weight += change
    true = torch.from_numpy(task.scores("validation").outputs - before).float()
    torch.testing.assert_close(found[0], true, rtol=1e-4, atol=1e-5)


def test_shifts_of_several_layers_stand_in_the_order_of_their_options() -> None:
    model, x = Line(), drawn(ROWS, WIDE)
    task = task_of(model, x)
    one, other = drawn(MIDDLE, WIDE), drawn(1, MIDDLE)
    (found,) = shifts_of(task, LayerItem("first", (option(one),)), LayerItem("last", (option(None), option(other))))
    assert found.shape == (3, ROWS)
    (alone,) = shifts_of(task, LayerItem("last", (option(other),)))
    torch.testing.assert_close(found[2], alone[0])
    assert LayerShifts(task, model, (LayerItem("last", (option(other),)),)).options == 1


def test_shift_of_columns_is_the_slope_of_the_loss() -> None:
    """Against the change of the loss itself, for a step so small that it is linear in it; in float64 throughout."""
    model, x = Columns(), drawn(ROWS, WIDE)
    task = task_of(model.double(), x.double(), metric="accuracy")
    change = drawn(MIDDLE, WIDE).double()
    found, sampled = shifts_of(task, LayerItem("first", (option(change),)))
    assert found.shape == sampled.shape == (1, ROWS)

    def loss() -> Tensor:
        with torch.no_grad():
            return task.row_loss(model(x=x.double()), torch.arange(ROWS) % 2)

    before, step = loss(), 1e-6
    with torch.no_grad():
        model.first.weight += step * change
    torch.testing.assert_close(found[0].double(), (loss() - before) / step, rtol=1e-3, atol=1e-4)


def menu_of(model: nn.Module, x: Tensor) -> dict[str, LayerItem]:
    return {item.name: item for item in layer_menu(task_of(model, x), model, {"x": x[:8]})}


def test_bytes_and_work_of_each_option_are_those_of_its_matrices() -> None:
    menu = menu_of(Line(), drawn(ROWS, WIDE))
    options = {one.words: one for one in menu["first"].options}
    whole = MIDDLE * WIDE
    assert (options["whole"].bytes, options["whole"].macs, options["whole"].change) == (4 * whole, whole, None)
    assert (options["int8"].bytes, options["int8"].macs) == (whole, whole)
    for rank in (rank for rank in RANKS if rank * (MIDDLE + WIDE) < 0.8 * whole):
        pair = rank * (MIDDLE + WIDE)
        assert (options[f"rank {rank}"].bytes, options[f"rank {rank}"].macs) == (4 * pair, pair)
        assert (options[f"rank {rank} int8"].bytes, options[f"rank {rank} int8"].macs) == (pair, pair)
    assert menu["first"].options[0].words == "whole"
    assert all(one.milliseconds > 0 for one in menu["first"].options)


def test_change_of_a_rank_is_what_its_weight_lacks() -> None:
    model, x = Line(), drawn(ROWS, WIDE)
    for one in menu_of(model, x)["first"].options:
        if one.rank is None:
            continue
        assert one.change is not None
        if one.bits == 32:
            assert torch.linalg.matrix_rank(model.first.weight.detach() + one.change, atol=1e-4) == one.rank
        else:  # both halves rounded: near to the same rank in float32
            assert float(one.change.abs().max()) > 0


def test_lower_ranks_change_the_outputs_seen_more() -> None:
    model, x = Line(), drawn(ROWS, WIDE)
    ranks = [one for one in menu_of(model, x)["first"].options if one.rank is not None and one.bits == 32]
    errors = [float((x @ one.change.T).square().sum()) for one in ranks if one.change is not None]
    assert errors == sorted(errors, reverse=True)


def test_rounding_moves_no_weight_by_more_than_half_a_step() -> None:
    weight = drawn(5, 7) * torch.tensor([1e-3, 1.0, 10.0, 0.0, 1.0])[:, None]
    step = weight.abs().amax(1) / 127
    assert bool(((rounded(weight) - weight).abs() <= 0.5 * step[:, None] + 1e-9).all())
    whole = torch.tensor([[127.0, -3.0, 5.0]])
    torch.testing.assert_close(rounded(whole), whole)


def test_a_convolution_works_at_each_place() -> None:
    options = menu_of(Picture(), drawn(ROWS, 1, 6, 6))["first"].options
    assert [one.words for one in options] == ["whole", "int8"]
    assert options[0].macs == 36 * 4 * 9


def test_layers_that_run_twice_in_a_call_are_left_out() -> None:
    class Twice(Line):
        def forward(self, x: Tensor) -> Tensor:
            first = self.first(x)
            found: Tensor = self.last(first) + self.last(-first)
            return found.squeeze(1)

    assert set(menu_of(Twice(), drawn(ROWS, WIDE))) == {"first"}
