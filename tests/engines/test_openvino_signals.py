"""An interrupt after OpenVINO models came and went: the process is still there."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

CODE = """
import faulthandler, signal, sys
from pathlib import Path
from flyweight.engines.openvino import OpenVino
faulthandler.enable()  # gives the thread a stack for signals, as test runners do
path = Path(sys.argv[1])
first, second = OpenVino(), OpenVino()
assert first.cannot_run(path) is None
kept = [first.prepare(path, 1), second.prepare(path, 1)]
while kept:
    kept.pop(0)  # the older goes first
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_interrupt_after_models_are_gone_is_an_interrupt(tmp_path: Path) -> None:
    import torch

    from flyweight.engines.export import export_onnx

    exported = export_onnx(torch.nn.Linear(4, 1), {"input": torch.zeros(3, 4)}, tmp_path, name="model")
    ran = subprocess.run([sys.executable, "-c", CODE, str(exported.path)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "interrupted\n"), ran.stderr
