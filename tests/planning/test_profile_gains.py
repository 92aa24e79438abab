"""Predicted gains: exact bytes against what steps really make, spans that hold, and what cannot be said."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.cost.sizes import bytes_on_disk, model_bytes
from flyweight.engines.export import export_onnx
from flyweight.planning.gain import Gain
from flyweight.planning.gains import METHODS
from flyweight.planning.profile import Profile
from flyweight.planning.requests import first_batch
from small_tasks import DIM, ITEMS, USERS, Split, batches, trained_task

WIDE = 128


class Deep(nn.Module):
    """Two tables and three wide layers."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, DIM), nn.Embedding(ITEMS, DIM)
        self.mlp = nn.Sequential(
            nn.Linear(2 * DIM + 1, WIDE), nn.ReLU(), nn.Linear(WIDE, WIDE), nn.ReLU(), nn.Linear(WIDE, 1)
        )

    def forward(self, user_id: Tensor, item_id: Tensor, price: Tensor) -> Tensor:
        return self.mlp(torch.cat([self.user(user_id), self.item(item_id), price[:, None]], 1)).squeeze(1)


class Net(nn.Module):
    """No table and no request."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image).squeeze(1)


def images() -> dict[str, Split]:
    def split(rows: int) -> Split:
        return batches({"image": torch.rand(rows, 1, 8, 8)}, torch.arange(rows).remainder(2).float())

    return {"train": split(256), "validation": split(128), "test": split(128)}


@pytest.fixture(scope="module")
def task() -> fw.Task:
    torch.manual_seed(0)
    return trained_task(Deep())


@pytest.fixture(scope="module")
def found(task: fw.Task) -> Profile:
    return fw.profile(task, seconds=0.3, threads=1)


@pytest.fixture(scope="module")
def gains(found: Profile) -> dict[str, Gain]:
    return {gain.method.partition("(")[0].partition(":")[0]: gain for gain in found.gains}


def test_every_method_is_told_of_with_how_it_is_known(gains: dict[str, Gain]) -> None:
    assert {"engine", "each request once", "EncodeTables", "Quantize", "Prune", "Factorize", "DropFields",
            "Distill"} <= set(gains)  # fmt: skip
    assert all(gain.known in ("measured", "counted", "estimated") and gain.how for gain in gains.values())
    for gain in gains.values():
        for span in (gain.bytes, gain.ms):
            assert span is None or 0 <= span.low <= span.likely <= span.high


def test_bytes_of_int8_are_those_of_the_file(task: fw.Task, gains: dict[str, Gain], tmp_path: Path) -> None:
    """Beside the numbers, the file holds the graph, as the float file does."""
    change = fw.Quantize(mixed=False).apply(task)
    folders = tmp_path / "float", tmp_path / "int8"
    for model, folder in zip((task.model, change.model), folders, strict=True):
        export_onnx(model, first_batch(task), folder)
    gone = bytes_on_disk(folders[0]) - bytes_on_disk(folders[1])
    said = model_bytes(task.model) - gains["Quantize"].bytes.likely
    assert gains["Quantize"].bytes.exact
    assert said == pytest.approx(gone, abs=6_000)  # names and operators of quantisers
    assert said == 3 * (WIDE * (2 * DIM + 1) + WIDE * WIDE + WIDE) - 9 * (2 * WIDE + 1)


def test_a_dropped_field_takes_its_table_along(task: fw.Task, gains: dict[str, Gain]) -> None:
    assert gains["DropFields"].method == "DropFields(names=['item_id'])"
    change = fw.DropFields(names=["item_id"]).apply(task)
    assert gains["DropFields"].bytes.likely == model_bytes(change.model)


def test_half_the_work_of_layers_alone_is_half_their_bytes(task: fw.Task, gains: dict[str, Gain]) -> None:
    macs = WIDE * (2 * DIM + 1) + WIDE * WIDE + WIDE
    assert gains["Factorize"].method == f"Factorize(max_macs={macs // 2:_})"
    change = fw.Factorize(max_macs=macs // 2, force=True).apply(task)
    assert gains["Factorize"].bytes.holds(model_bytes(change.model))


def test_what_is_measured_is_the_clocks(found: Profile, gains: dict[str, Gain]) -> None:
    once = found.latencies[min((n for n in found.latencies if n.endswith(", rewritten") and "bf16" not in n),
                               key=lambda n: found.latencies[n].p50)]  # fmt: skip
    assert gains["each request once"].ms.likely == once.p50
    assert (gains["each request once"].ms.low, gains["each request once"].ms.high) == (once.p50_low, once.p50_high)


def test_nothing_is_said_to_make_a_request_slower_that_would_be_taken_back(found: Profile, gains) -> None:
    now = found.latencies[found.best].p50
    for method in ("Quantize", "Prune", "Factorize"):
        assert gains[method].ms.high == now
        assert gains[method].ms.low < now


def test_a_net_without_tables_and_requests_has_fewer_ways() -> None:
    torch.manual_seed(0)
    made = trained_task(Net(), inputs={"image": fw.Field("sample")}, data=images())
    found = fw.profile(made, seconds=0.2, rows=8, threads=1)
    methods = {gain.method.partition("(")[0] for gain in found.gains}
    assert {"Quantize", "Prune", "Distill"} <= methods
    assert not {"EncodeTables", "DropFields", "each request once"} & methods
    assert found.tables == ()


def test_a_method_that_cannot_be_worked_out_is_skipped_with_the_reason(monkeypatch, task: fw.Task) -> None:
    from flyweight.errors import InputError
    from flyweight.planning import gains as module

    def fails(known: object) -> None:
        raise InputError("the loss has no gradient.")

    monkeypatch.setattr(module, "METHODS", {**METHODS, "EncodeTables": fails})
    found = fw.profile(task, seconds=0.1, threads=1)
    assert "EncodeTables" not in {gain.method.partition("(")[0] for gain in found.gains}
    assert "EncodeTables: the loss has no gradient." in map(str, found.skipped)
