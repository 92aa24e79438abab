"""`encode` as a user has it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flyweight.tables.encode_file import read_coded_file

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_table_is_coded_and_what_came_of_it_is_said(flyweight: Run, place: Path) -> None:
    np.save(place / "table.npy", np.random.default_rng(0).standard_normal((10_000, 16), dtype=np.float32))
    done = flyweight("encode", "table.npy", "--out", "table.codes", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "10,000 rows of 16, 640,000 bytes as float32, became 5,512, 116x smaller" in " ".join(done.stdout.split())
    assert read_coded_file(place / "table.codes").bytes == 5_512


def test_wrong_input_is_one_line(flyweight: Run, place: Path) -> None:
    done = flyweight("encode", "nowhere.npy", "--out", "other.codes")
    assert done.returncode == 2
    assert "nowhere.npy cannot be read" in " ".join(done.stderr.split())
    done = flyweight("encode", "mine.py", "--out", "other.codes")
    assert done.returncode == 2
    assert "neither a NumPy nor a safetensors file" in " ".join(done.stderr.split())
