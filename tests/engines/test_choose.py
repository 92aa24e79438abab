"""The engine is chosen by measurement, among those that give the right scores."""

from pathlib import Path

import numpy as np
import pytest
import torch
from exportable import Bag, Ranker, bag_batch, ranker_batch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.engines.choose import choose_engine, timed_batches
from flyweight.engines.export import Exported, export_onnx
from flyweight.engines.registry import ENGINES
from flyweight.errors import EngineError, InputError

Arrays = dict[str, NDArray[np.generic]]


def scored(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Arrays, NDArray[np.generic]]:
    with torch.no_grad():
        return {name: value.numpy() for name, value in batch.items()}, model.eval()(**batch).numpy()


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Arrays, NDArray[np.generic]]:
    torch.manual_seed(0)
    model = Ranker()
    exported = export_onnx(model, ranker_batch(6), tmp_path_factory.mktemp("ranker"))
    return exported, *scored(model, ranker_batch(30))


def test_fastest_of_all_that_agree_is_chosen(ranker: tuple[Exported, Arrays, NDArray[np.generic]]) -> None:
    exported, sample, scores = ranker
    choice = choose_engine(exported.path, [sample, sample], [scores, scores], threads=1, candidates=500, seconds=1)
    assert set(choice.latencies) == set(ENGINES) == set(choice.agreements)
    assert choice.engine == min(choice.latencies, key=lambda name: choice.latencies[name].p50)
    assert choice.skipped == ()
    assert {one.candidates for one in choice.latencies.values()} == {500}


def test_engine_with_other_scores_is_skipped(
    ranker: tuple[Exported, Arrays, NDArray[np.generic]], monkeypatch: pytest.MonkeyPatch
) -> None:
    exported, sample, scores = ranker
    real = ENGINES["openvino"].prepare

    class Wrong:
        def __init__(self, path: Path, threads: int = 0) -> None:
            self.inner = real(path, threads)
            self.input_names = self.inner.input_names
            self.close = self.inner.close

        def run(self, inputs: Arrays) -> NDArray[np.generic]:
            return self.inner.run(inputs) + (inputs["user_id"] == inputs["user_id"].max())

    monkeypatch.setattr(ENGINES["openvino"], "prepare", Wrong)
    choice = choose_engine(exported.path, [sample], [scores], threads=1, seconds=0.2)
    assert choice.engine == "onnxruntime"
    (skipped,) = choice.skipped
    assert skipped.engine == "openvino"
    assert "its scores of sample 0 are not the model's: largest difference 1," in skipped.why


def test_missing_engine_is_skipped_with_its_reason(
    ranker: tuple[Exported, Arrays, NDArray[np.generic]], monkeypatch: pytest.MonkeyPatch
) -> None:
    exported, sample, scores = ranker
    monkeypatch.setattr(ENGINES["openvino"], "available", lambda: "openvino is not installed")
    choice = choose_engine(exported.path, [sample], [scores], threads=1, seconds=0.2)
    assert [(one.engine, one.why) for one in choice.skipped] == [("openvino", "openvino is not installed")]


def test_no_engine_right_is_an_error_with_all_reasons(ranker: tuple[Exported, Arrays, NDArray[np.generic]]) -> None:
    exported, sample, scores = ranker
    with pytest.raises(EngineError, match=r"No engine runs model.onnx .*onnxruntime: its scores.*openvino: its scores"):
        choose_engine(exported.path, [sample], [scores + 1], threads=1)


def test_engine_that_rounds_large_ids_is_skipped(tmp_path: Path) -> None:
    """Integer division in OpenVINO goes through float32: only a sample with high ids tells."""

    class Parity(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return (ids % 2).to(torch.float32)

    exported = export_onnx(Parity(), {"ids": torch.arange(4)}, tmp_path)
    low, high = (scored(Parity(), {"ids": start + torch.arange(100)}) for start in (0, 10**8))
    choice = choose_engine(exported.path, [low[0], high[0]], [low[1], high[1]], threads=1, seconds=0.2)
    assert choice.engine == "onnxruntime"
    assert [one.engine for one in choice.skipped] == ["openvino"]
    assert "sample 1" in choice.skipped[0].why


def test_flat_ids_are_timed_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Bag("sum")
    exported = export_onnx(model, bag_batch(6), tmp_path)
    sample, scores = scored(model, bag_batch(20))
    choice = choose_engine(exported.path, [sample], [scores], threads=1, seconds=0.2)
    assert {one.candidates for one in choice.latencies.values()} == {20}


def test_every_sample_needs_its_reference() -> None:
    with pytest.raises(InputError, match="seen 0 and 0"):
        choose_engine(Path("model.onnx"), [], [], threads=1)


def test_samples_are_repeated_to_the_candidates() -> None:
    batches, rows = timed_batches([{"x": np.arange(3)}], [3], 7)
    assert rows == 7
    assert batches[0]["x"].tolist() == [0, 1, 2, 0, 1, 2, 0]
