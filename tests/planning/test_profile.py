"""Where bytes and time go: counts against formulas, the share that a request repeats, and plain advice."""

import json
import os
import signal

import pytest
import torch
from test_rewriting import Wide
from torch import nn
from typer.testing import CliRunner

import flyweight as fw
from flyweight.cli.profile import render
from flyweight.cost.module_macs import module_macs
from flyweight.errors import InputError
from flyweight.planning.profile import _advice
from flyweight.task.measurement import Latency
from small_tasks import DIM, FIELDS, ITEMS, USERS, Ranker, splits, trained_task


@pytest.fixture(scope="module")
def found() -> "fw.planning.profile.Profile":  # type: ignore[name-defined]
    torch.manual_seed(0)
    return fw.profile(trained_task(Wide()), seconds=0.2, threads=1)


def test_macs_stand_at_the_module_that_does_them() -> None:
    model = nn.Sequential(nn.Linear(100, 10), nn.ReLU(), nn.Sequential(nn.Linear(10, 3), nn.Linear(3, 1)))
    assert module_macs(model, {"input": torch.rand(4, 100)}, rows=4) == {"0": 1000, "2.0": 30, "2.1": 3}


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
    assert found.roofline.latency_ms == min(one.p50 for name, one in found.latencies.items() if name != "eager")


def test_a_small_model_is_told_to_stay_as_it_is() -> None:
    fields = {name: fw.Field("sample", field.rows) for name, field in FIELDS.items()}
    torch.manual_seed(0)
    found = fw.profile(trained_task(Ranker(), inputs=fields), seconds=0.2, rows=8, threads=1)
    assert found.repeated is None
    assert found.advice[0].startswith("Do not compress this: it is 0.0 MB")


def test_a_small_model_is_told_what_hoisting_still_gains(found) -> None:
    def took(p50: float) -> Latency:
        return Latency(p50, p50, p50, p50, p50, repeats=9, candidates=500, threads=1)

    plain, once = took(0.2), took(0.1)
    both = {"onnxruntime": plain, "onnxruntime, rewritten": once}
    first, second = _advice(10_000, 0, found.repeated, both, None)
    assert first == "Do not compress this: it is 0.0 MB and 0.20 ms a request."
    assert second.startswith(
        "Each request worked out once still gains: 0.100 instead of 0.200 ms. compress(task, steps=[])"
    )
    assert len(_advice(10_000, 0, found.repeated, both | {"onnxruntime, rewritten": plain}, None)) == 1


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
    assert "done: 7 operators once for each request" in shown.output
    lines = shown.output.splitlines()
    (head,) = [place for place, line in enumerate(lines) if line.startswith("one request of 500")]
    assert not lines[head - 1].strip()
    told = CliRunner().invoke(main.app, ["profile", f"{source}:task", "--json"])
    assert json.loads(told.stdout[told.stdout.index("{") :])["repeated"]["request_only"] == found.repeated.request_only
    assert render(found) is not None
