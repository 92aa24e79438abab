"""`parallel train` as a user has it: two processes, the plan, what each held, and the weights in a file."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_train_says_the_plan_and_writes_weights(flyweight: Run, place: Path) -> None:
    rates = ("--table-rate", "0.02", "--dense-rate", "0.02", "--spread", "0.3", "--batch-rows", "128", "--epochs", "3")
    done = flyweight("parallel", "train", "mine.py:task", "--tables", "row", "--fresh", *rates, "--out", "new.npz")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "2 tables of 14.7 kB over 2 processes: rank 0 7.4 kB, rank 1 7.4 kB" in said
    assert "rows of rank 0 0 to 199, rank 1 200 to 399" in said
    assert "Rank 1: 7.4 kB of tables" in said
    assert "96 steps in" in said  # 31 whole batches of 128 rows in 7 of 512 and one of 416, three times
    assert "Validation auc:" in said
    assert "Wrote new.npz" in said
    weights = np.load(place / "new.npz", allow_pickle=False)
    assert {name: weights[name].shape for name in ("user.weight", "item.weight")} == {
        "user.weight": (60, 8),
        "item.weight": (400, 8),
    }
    assert all(np.isfinite(weights[name]).all() for name in weights.files)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tables", "column"), "Tables are placed by one of auto, row, table; seen 'column'"),
        (("--optimizer", "lion"), "table_optimizer 'lion' is unknown"),
        (("--out", "nowhere/new.npz"), "there is no folder nowhere; change --out"),
        (("--out", "."), "it is a folder; change --out"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_code_2(
    words: tuple[str, ...], said: str, call: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, errors = call("parallel", "train", "mine.py:task", *words)
    assert code == 2
    assert said in " ".join(errors.split())


def test_a_rank_without_what_torchrun_sets_beside_it_is_told(
    call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "0")
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    code, _, errors = call("parallel", "train", "mine.py:task", "--folder", str(tmp_path / "rows"))
    assert code == 2
    assert "seen RANK=0, no WORLD_SIZE, no MASTER_ADDR, no MASTER_PORT" in " ".join(errors.split())
