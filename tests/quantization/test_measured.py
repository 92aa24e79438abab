"""Candidates on the clock: lookups that all share are written and timed once, and count for each."""

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.cost.latency import Rounds
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.quantization import measured
from flyweight.quantization.lookups_aside import lookups, lookups_alone, without_lookups
from flyweight.quantization.quantize import Quantize
from small_tasks import ITEMS, USERS, Ranker, seeded, trained_task

INPUTS = {"user_id": torch.arange(7), "item_id": torch.arange(7) * 3, "price": torch.linspace(0, 1, 7)}


@pytest.fixture(scope="module")
def ranker() -> TracedModel:
    return trace(seeded(Ranker).eval(), INPUTS)


class Tied(nn.Module):
    """Scores all items by the table that it looks them up in; one id is changed on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, 8), nn.Embedding(ITEMS, 8)

    def forward(self, user_id: Tensor, item_id: Tensor) -> Tensor:
        return (self.user(user_id % 5) + self.item(item_id)) @ self.item.weight.T


def test_what_lookups_give_becomes_an_input(ranker: TracedModel) -> None:
    names = lookups(ranker, INPUTS)
    assert len(names) == 2
    rest, given = without_lookups(ranker, INPUTS, names)
    assert list(given) == list(rest.names)
    assert {name: tuple(value.shape) for name, value in given.items() if name != "price"} == {
        f"looked_up_{name}": (7, 8) for name in names
    }
    torch.testing.assert_close(rest(**given), ranker(**INPUTS), rtol=0, atol=0)
    assert sum(parameter.numel() for parameter in rest.parameters()) == 17 * 16 + 16 + 16 + 1
    assert lookups(ranker, INPUTS).keys() == names.keys(), "the model is left as it was"


def test_lookups_alone_give_the_rows_side_by_side(ranker: TracedModel) -> None:
    alone, given = lookups_alone(ranker, INPUTS, lookups(ranker, INPUTS))
    assert list(given) == ["user_id", "item_id"]
    rows = [ranker.body.user.weight[INPUTS["user_id"]], ranker.body.item.weight[INPUTS["item_id"]]]
    torch.testing.assert_close(alone(**given), torch.cat(rows, 1), rtol=0, atol=0)
    assert sum(parameter.numel() for parameter in alone.parameters()) == 8 * (USERS + ITEMS)


def test_ids_that_are_changed_on_their_way_stay() -> None:
    inputs = {name: INPUTS[name] for name in ("user_id", "item_id")}
    traced = trace(seeded(Tied).eval(), inputs)
    found = lookups(traced, inputs)
    (only,) = found
    rest, given = without_lookups(traced, inputs, found)
    assert set(given) == {"user_id", f"looked_up_{only}"}
    torch.testing.assert_close(rest(**given), traced(**inputs), rtol=0, atol=0)


def test_a_table_that_a_candidate_rounds_is_shared_by_none() -> None:
    columns = [({name: INPUTS[name].repeat(40) for name in ("user_id", "item_id")}, torch.arange(280) % ITEMS)] * 2
    fields = {"user_id": fw.Field(rows=USERS), "item_id": fw.Field(rows=ITEMS)}
    task = fw.Task(seeded(Tied).eval(), fields, columns, columns, columns, metric="accuracy")
    rounded = Quantize(mixed=False).apply(task).model
    assert isinstance(rounded, TracedModel)
    assert not lookups(rounded, columns[0][0])


def test_times_and_bytes_are_those_of_whole_models(ranker: TracedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    export = measured.export_onnx

    def noted(*args: object) -> object:
        exported = export(*args)  # type: ignore[arg-type]
        written.append(exported.bytes)
        return exported

    def timed(calls: dict[str, object], **_: object) -> Rounds:
        milliseconds = {"lookups": 5.0, "float32": 4.0, "other": 1.5}
        samples = {name: torch.full((3,), milliseconds[name.split()[1]]).numpy() for name in calls}
        return Rounds(samples, candidates=7, threads=1)

    monkeypatch.setattr(measured, "export_onnx", noted)
    monkeypatch.setattr(measured, "time_rounds", timed)
    found = measured.time_candidates({"float32": ranker, "other": ranker}, INPUTS)
    assert {label: one.milliseconds for label, one in found.items()} == {"float32": 9.0, "other": 6.5}
    layers, other, tables = written
    assert layers == other
    assert tables > 4 * 8 * (USERS + ITEMS)
    assert {one.bytes for one in found.values()} == {layers + tables}


def test_candidates_run_in_every_engine_here() -> None:
    task = trained_task(seeded(Ranker))
    traced = trace(task.model, INPUTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "SECONDS", 0.05)
        found = measured.time_candidates({"a": traced, "b": traced}, measured.served_inputs(task, traced))
    assert all(one.milliseconds > 0 for one in found.values())
    assert {one.engine for one in found.values()} <= {"onnxruntime", "openvino"}
