"""Where bytes and time go: counts against formulas, the share that a request repeats, and plain advice."""

import dataclasses
import io
import json
import os
import re
import signal

import pytest
import torch
from rich.console import Console
from test_rewriting import Wide
from torch import nn
from typer.testing import CliRunner

import flyweight as fw
from flyweight.cli.profile_view import render
from flyweight.cost.module_macs import module_macs
from flyweight.engines.registry import ROUNDING
from flyweight.errors import InputError
from flyweight.planning.profile_data import as_data
from flyweight.planning.timed_forms import engine_of
from small_tasks import DIM, FIELDS, ITEMS, USERS, Ranker, splits, trained_task


@pytest.fixture(scope="module")
def found() -> "fw.planning.profile.Profile":  # type: ignore[name-defined]
    torch.manual_seed(0)
    return fw.profile(trained_task(Wide()), seconds=0.2, threads=1)


def test_macs_stand_at_the_module_that_does_them() -> None:
    model = nn.Sequential(nn.Linear(100, 10), nn.ReLU(), nn.Sequential(nn.Linear(10, 3), nn.Linear(3, 1)))
    assert module_macs(model, {"input": torch.rand(4, 100)}, rows=4) == {"0": 1000, "2.0": 30, "2.1": 3}


def test_macs_in_a_list_of_modules_count_once() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 2)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers[1](self.layers[0](x))

    assert module_macs(Listed(), {"x": torch.rand(4, 8)}, rows=4) == {"layers.0": 64, "layers.1": 16}


def test_parts_add_up_to_the_whole(found) -> None:
    assert found.bytes == sum(part.bytes for part in found.parts)
    assert found.table_bytes == 4 * DIM * (USERS + ITEMS)
    assert found.macs == sum(part.macs for part in found.parts)


def test_the_users_tower_is_the_requests_share(found) -> None:
    tower = 512 * DIM + 512 * 512 + 512 * DIM
    first = 16 * DIM  # what the first layer of the other part takes from the user
    assert found.repeated.request_only == tower
    assert found.repeated.once == tower + first
    assert found.repeated.candidate == found.repeated.row - tower - first
    assert found.repeated.saved == pytest.approx((tower + first) / found.repeated.row)
    assert any("of each candidate's work is the request's" in one for one in found.advice)


def test_what_is_rewritten_is_timed_beside_what_is_not(found) -> None:
    assert {"eager", "onnxruntime", "onnxruntime, rewritten"} <= set(found.latencies)
    assert found.rows == 500
    exact = {name: one.p50 for name, one in found.latencies.items() if engine_of(name) not in ROUNDING}
    assert found.roofline.latency_ms == found.latencies[found.best].p50 == min(
        one for name, one in exact.items() if name != "eager"
    )


def test_time_stands_at_the_module_that_it_is_for(found) -> None:
    times = found.operators[found.timed]
    by_name = {part.name: part for part in found.parts}
    assert by_name["tower.0"].ms > 0
    assert sum(part.ms for part in found.parts) <= times.ms * 1.0001
    assert {part.name for part in found.parts if part.kind == "Embedding" and part.ms} == {"user", "item"}


def test_tables_say_how_training_uses_them(found) -> None:
    assert {one.name: (one.rows, one.dim, one.bytes) for one in found.tables} == {
        "user": (USERS, DIM, 4 * DIM * USERS),
        "item": (ITEMS, DIM, 4 * DIM * ITEMS),
    }


def test_json_holds_all_of_it_with_what_follows(found) -> None:
    data = json.loads(json.dumps(as_data(found)))
    assert set(data) == {field.name for field in dataclasses.fields(found)}
    assert data["roofline"]["binds"] in ("memory", "compute", "overhead")
    assert data["operators"][found.best]["by_purpose"]["products"] > 0
    assert data["repeated"]["saved"] == found.repeated.saved
    assert [one["method"] for one in data["gains"]] == [one.method for one in found.gains]


def test_a_small_model_is_told_to_stay_as_it_is() -> None:
    fields = {name: fw.Field("sample", field.rows) for name, field in FIELDS.items()}
    torch.manual_seed(0)
    found = fw.profile(trained_task(Ranker(), inputs=fields), seconds=0.2, rows=8, threads=1)
    assert found.repeated is None
    assert found.advice[0].startswith("Do not compress this: it is 0.0 MB")


def test_wrong_settings_are_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(InputError, match="rows and seconds must be positive; seen rows=0"):
        fw.profile(trained_task(Ranker(), data=splits()), rows=0)
    with pytest.raises(InputError, match="threads must be a whole number from 0 on; seen -1"):
        fw.profile(trained_task(Ranker(), data=splits()), threads=-1)


@pytest.mark.parametrize("swallowed", [False, True])
def test_interrupted_profile_says_so_and_leaves_with_130(tmp_path, monkeypatch, swallowed: bool) -> None:
    from flyweight.cli import main
    from flyweight.planning import profile as module

    def interrupted(task, **_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            if not swallowed:
                raise

    monkeypatch.setattr(module, "profile", interrupted)
    source = tmp_path / "mine.py"
    source.write_text("from small_tasks import Ranker, trained_task\ndef task(): return trained_task(Ranker())\n")
    left = CliRunner().invoke(main.app, ["profile", f"{source}:task"])
    assert left.exit_code == 130
    assert "Stopped; nothing was written." in left.output


def test_the_verb_shows_it_as_a_table_and_as_json(tmp_path, monkeypatch, found) -> None:
    from flyweight.cli import main
    from flyweight.planning import profile as module

    monkeypatch.setattr(module, "profile", lambda task, **_: found)
    source = tmp_path / "mine.py"
    source.write_text("from small_tasks import Ranker, trained_task\ndef task(): return trained_task(Ranker())\n")
    shown = CliRunner().invoke(main.app, ["profile", f"{source}:task"])
    assert "split linear, 1 x in mlp.0" in shown.output
    assert re.search(r"done +7 operators once for each request", shown.output)
    lines = shown.output.splitlines()
    (head,) = [place for place, line in enumerate(lines) if line.startswith("one request of 500")]
    assert not lines[head - 1].strip()
    told = CliRunner().invoke(main.app, ["profile", f"{source}:task", "--json", "-"])
    assert json.loads(told.stdout)["repeated"]["request_only"] == found.repeated.request_only
    kept = CliRunner().invoke(main.app, ["profile", f"{source}:task", "--json", str(tmp_path / "found.json")])
    assert json.loads((tmp_path / "found.json").read_text())["bytes"] == found.bytes
    assert kept.output == shown.output
    refused = CliRunner().invoke(main.app, ["profile", f"{source}:task", "--json", str(tmp_path / "no" / "found.json")])
    assert "The JSON cannot be written" in str(refused.exception)


def test_the_table_fits_100_columns_and_names_what_was_worked_out_how(found) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render(found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    for gain in found.gains:
        assert gain.method in text
