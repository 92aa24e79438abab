"""Exported models score as PyTorch does, at any number of rows, and a refusal names operator and module."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exportable import MODELS, History, Ranker, ranker_batch
from torch import Tensor, nn

from flyweight.engines.agreement import agreement
from flyweight.engines.export import export_onnx
from flyweight.engines.operators import operator_counts
from flyweight.engines.registry import ENGINES, find_engine
from flyweight.errors import ExportError


@pytest.mark.parametrize("kind", MODELS)
def test_exported_scores_are_torch_scores(kind: str, tmp_path: Path) -> None:
    build, batch = MODELS[kind]
    torch.manual_seed(0)
    model = build().eval()
    exported = export_onnx(model, batch(6), tmp_path)
    for engine in ENGINES.values():
        prepared = engine.prepare(exported.path, threads=1)
        for rows in (1, 2, 6, 777):
            inputs = batch(rows)
            with torch.no_grad():
                expected = model(**inputs).numpy()
            scores = prepared.run({name: value.numpy() for name, value in inputs.items()})
            assert scores.shape == expected.shape
            seen = agreement(expected, scores)
            assert seen.ok, f"{kind} in {engine.name} at {rows} rows: {seen.words}"
        prepared.close()


def test_exported_bags_hold_no_loops(tmp_path: Path) -> None:
    build, batch = MODELS["bag mean"]
    counts = operator_counts(export_onnx(build(), batch(6), tmp_path).path)
    assert not {"Loop", "Scan", "If", "SequenceEmpty"} & set(counts)


def test_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = Ranker()
    first = export_onnx(model, ranker_batch(6), tmp_path / "first")
    second = export_onnx(copy.deepcopy(model), ranker_batch(9), tmp_path / "second")
    for suffix in ("", ".data"):
        one, two = (Path(f"{exported.path}{suffix}").read_bytes() for exported in (first, second))
        assert one == two


def test_file_says_nothing_of_the_machine(tmp_path: Path) -> None:
    exported = export_onnx(Ranker(), ranker_batch(6), tmp_path)
    data = exported.path.read_bytes()
    for word in (str(Path(torch.__file__).parent), str(Path(__file__).parent), "stack_trace", "site-packages", "torch"):
        assert word.encode() not in data
    proto = onnx.load(exported.path)
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.producer_name, proto.producer_version) == ("flyweight", "")


def test_bytes_are_those_on_disk_and_large_tensors_lie_outside(tmp_path: Path) -> None:
    model = Ranker()
    exported = export_onnx(model, ranker_batch(6), tmp_path)
    data = Path(f"{exported.path}.data")
    assert exported.bytes == exported.path.stat().st_size + data.stat().st_size
    proto = onnx.load(exported.path, load_external_data=False)
    outside = {one.name.removeprefix("model.") for one in proto.graph.initializer if one.external_data}
    assert outside == {name for name, value in model.named_parameters() if value.numel() * 4 > 1024}


def test_inputs_keep_their_names_and_share_open_rows(tmp_path: Path) -> None:
    exported = export_onnx(Ranker(), ranker_batch(6), tmp_path, name="ranker")
    graph = onnx.load(exported.path).graph
    shapes = {
        one.name: [size.dim_param or size.dim_value for size in one.type.tensor_type.shape.dim] for one in graph.input
    }
    assert shapes == {"user_id": ["rows"], "item_id": ["rows"], "tags": ["rows", 3], "price": ["rows"]}
    assert [one.name for one in graph.output] == ["score"]
    assert exported.path.name == "ranker.onnx"
    assert exported.inputs == ("user_id", "item_id", "tags", "price")
    assert exported.output == (None,)


def test_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = Ranker().train()
    model.mlp[1].eval()
    before = copy.deepcopy(model.state_dict())
    export_onnx(model, ranker_batch(6), tmp_path)
    assert model.training
    assert not model.mlp[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_export_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    export_onnx(Ranker(), ranker_batch(6), tmp_path)
    with pytest.raises(ExportError):
        export_onnx(Tower(Branches()), {"x": torch.rand(6, 3)}, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_batch_of_one_row_leaves_rows_open(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = History().eval()
    exported = export_onnx(model, {"history": torch.tensor([[1, 2, 3]]), "item_id": torch.tensor([5])}, tmp_path)
    inputs = {"history": torch.tensor([[1, 2, 0], [4, 5, 6], [7, 7, 7]]), "item_id": torch.tensor([1, 2, 3])}
    scores = ENGINES["onnxruntime"].prepare(exported.path).run({name: value.numpy() for name, value in inputs.items()})
    assert agreement(model(**inputs).detach().numpy(), scores).ok


class Tower(nn.Module):
    """Something that cannot be exported, one floor down."""

    def __init__(self, bad: nn.Module) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(3, 3), bad)

    def forward(self, x: Tensor) -> Tensor:
        return self.tower(x)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


class Eigen(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x.unsqueeze(-1) * x.unsqueeze(-2)).real


class SixRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(6, -1)


class SixMore(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(6, 1)


class ThroughNumPy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.sort(x.numpy(), 0))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Branches(), ["in `return x + 1 if x.sum() > 0 else x`", "module tower.1 (Branches)", "data-dependent"]),
        (Eigen(), ["aten.linalg_eig.default", "module tower.1 (Eigen)", "No ONNX function found"]),
        (SixRows(), ["number of rows", "module tower.1 (SixRows)", "6 rows only"]),
        (SixMore(), ["number of rows", "module tower.1 (SixMore)", "6 rows only"]),
        (ThroughNumPy(), ["np.sort(x.numpy(), 0)", "module tower.1 (ThroughNumPy)"]),
    ],
)
def test_failed_export_names_operator_and_module(bad: nn.Module, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export_onnx(Tower(bad), {"x": torch.rand(6, 3)}, tmp_path)
    for word in [*words, "Rewrite that part"]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_output_that_is_no_tensor_of_rows_is_refused(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(ExportError, match="returned tuple; it must return one tensor"):
        export_onnx(Pair(), {"x": torch.rand(6, 3)}, tmp_path)


def test_input_called_score_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="An input is called 'score'"):
        export_onnx(Tower(nn.ReLU()), {"score": torch.rand(6, 3)}, tmp_path)


class AllSums(nn.Module):
    """A table of all sums of two codewords, worked out when a file is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(1, 128, 16)), nn.Parameter(torch.randn(128, 1, 16))

    def forward(self, item: Tensor) -> Tensor:
        return nn.functional.embedding(item, (self.first + self.second).reshape(-1, 16)).sum(-1)


def test_constants_are_not_written_larger_than_what_they_are_made_of(tmp_path: Path) -> None:
    model, ids = AllSums().eval(), torch.arange(0, 128 * 128, 1000)
    exported = export_onnx(model, {"item": ids}, tmp_path)
    assert exported.bytes < 4 * 2 * 128 * 16 + 4096  # all sums would be a megabyte
    scores = find_engine("onnxruntime").prepare(exported.path, 1).run({"item": ids.numpy()})
    np.testing.assert_allclose(scores, model(ids).detach().numpy(), rtol=1e-5, atol=1e-5)
