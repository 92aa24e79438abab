"""Constants that half precision holds exactly take half the bytes, and give the same scores."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from flyweight.engines.export import export_onnx
from flyweight.engines.registry import find_engine
from small_tasks import seeded


class Biased(nn.Module):
    """A layer and a constant added to its outputs."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(8, len(shift))
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x) + self.shift).sum(1)


def shift_of(values: Tensor) -> Tensor:
    return values.half().float()


@pytest.fixture
def x() -> dict[str, Tensor]:
    return {"x": torch.randn(7, 8, generator=torch.Generator().manual_seed(3))}


def stored(path: Path) -> dict[str, np.dtype]:
    graph = onnx.load(path).graph
    return {one.name: onnx.numpy_helper.to_array(one).dtype for one in graph.initializer}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_exact_numbers_are_stored_in_half_the_bytes(x: dict[str, Tensor], tmp_path: Path, engine: str) -> None:
    model = seeded(lambda: Biased(shift_of(torch.randn(600)))).eval()
    exported = export_onnx(model, x, tmp_path)
    assert [name for name, dtype in stored(exported.path).items() if dtype == np.float16] == ["model.shift.half"]
    with torch.no_grad():
        wanted = model(**x).numpy()
    found = find_engine(engine).prepare(exported.path, 1).run({"x": x["x"].numpy()})
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "shift",
    [
        torch.full((600,), 0.1),  # rounded by half precision
        torch.full((600,), 1e6),  # beyond it
        torch.full((600,), 1e-9),
        shift_of(torch.randn(20)),  # not worth a cast
        torch.tensor([*([1.0] * 599), 1.0 + 2**-20]),
    ],
)
def test_others_stay_as_they_are(x: dict[str, Tensor], tmp_path: Path, shift: Tensor) -> None:
    exported = export_onnx(seeded(lambda: Biased(shift)).eval(), x, tmp_path)
    assert np.dtype(np.float16) not in stored(exported.path).values()


def test_not_a_number_is_no_reason_to_fail(x: dict[str, Tensor], tmp_path: Path) -> None:
    export_onnx(seeded(lambda: Biased(torch.full((600,), float("nan")))).eval(), x, tmp_path)
