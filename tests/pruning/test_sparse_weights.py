"""Sparse weights: exact, small on disk, folded away by the engines, trainable without losing their zeros."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from flyweight.bundle.bounds import check_bounds
from flyweight.engines.export import export_onnx
from flyweight.engines.registry import find_engine
from flyweight.graph.sparse_bits import read_bits, write_bits
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, tensor_of
from flyweight.pruning.sparse_packing import Coded, pack_weight, with_dense_weights, with_sparse_weights
from flyweight.zoo.models.lenet import LeNet300100

WEIGHTS = ("layers.0.weight", "layers.2.weight")


def sparse(shape: tuple[int, ...], density: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < density)


def coded(weight: Tensor, bits: int = 4) -> Coded:
    generator = torch.Generator().manual_seed(1)
    codebook = torch.cat([torch.zeros(1), torch.randn((1 << bits) - 1, generator=generator)])
    codes = torch.randint(1, 1 << bits, weight.shape, generator=generator) * (weight != 0)
    return Coded(codes, codebook, bits)


def sparse_lenet(density: float, *, codes: bool) -> tuple[TracedModel, TracedModel]:
    """A LeNet-300-100 with zeros, dense and with its two large weights packed."""
    torch.manual_seed(0)
    traced = trace(LeNet300100().eval(), {"image": torch.rand(4, 1, 28, 28)})
    packed = {}
    for number, name in enumerate(WEIGHTS):
        weight = tensor_of(traced.body, name)
        zeros = sparse(tuple(weight.shape), density, number)
        given = coded(zeros) if codes else zeros
        with torch.no_grad():
            weight.copy_(given.codebook[given.codes] if isinstance(given, Coded) else given)
        module = pack_weight(given)
        assert module is not None
        packed[name] = module
    return traced, with_sparse_weights(traced, packed)


@pytest.mark.parametrize("bits", [1, 3, 5, 8, 12])
def test_bits_read_back_what_was_written(bits: int) -> None:
    numbers = torch.randint(1 << bits, (1_003,), generator=torch.Generator().manual_seed(bits))
    packed = write_bits(numbers, bits)
    assert len(packed) == -(-1_003 * bits // 8)
    assert torch.equal(read_bits(packed, bits, 1_003), numbers)


@pytest.mark.parametrize("density", [0.003, 0.05, 0.3, 0.6])
@pytest.mark.parametrize("shape", [(300, 784), (40, 30, 3, 3)])
def test_a_packed_weight_is_the_same_weight(density: float, shape: tuple[int, ...]) -> None:
    weight = sparse(shape, density)
    packed = pack_weight(weight)
    assert packed is not None
    assert torch.equal(packed(), weight)
    assert packed.bytes() < 4 * weight.numel()


@pytest.mark.parametrize("density", [0.02, 0.5, 1.0])
def test_a_packed_coded_weight_is_the_same_weight(density: float) -> None:
    given = coded(sparse((300, 784), density))
    packed = pack_weight(given)
    assert packed is not None
    assert torch.equal(packed(), given.codebook[given.codes])


def test_a_first_weight_that_is_kept_and_long_runs_of_zeros_are_placed_right() -> None:
    weight = torch.zeros(10_000)
    weight[[0, 1, 4_999, 9_999]] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    packed = pack_weight(weight)
    assert packed is not None
    assert torch.equal(packed(), weight)


def test_a_weight_that_would_not_shrink_stays_dense() -> None:
    assert pack_weight(sparse((300, 784), 0.99)) is None
    assert pack_weight(sparse((10, 10), 0.1)) is None


def test_bytes_lie_near_the_entropy_of_the_places() -> None:
    """Of n places with density p, no code is below n * H(p) bits; gaps of fixed width come within a quarter of it."""
    p, weight = 0.05, sparse((1_000, 1_000), 0.05)
    packed = pack_weight(weight)
    assert packed is not None
    entropy = -weight.numel() * (p * np.log2(p) + (1 - p) * np.log2(1 - p)) / 8
    fillers = packed.entries - int((weight != 0).sum())
    assert packed.places.numel() < 1.25 * entropy
    assert fillers < 0.05 * packed.entries


@pytest.mark.parametrize("codes", [False, True])
def test_gradients_are_those_of_the_dense_weight_summed_over_shared_values(codes: bool) -> None:
    weight = sparse((60, 50), 0.2)
    given = coded(weight) if codes else weight
    packed = pack_weight(given)
    assert packed is not None
    target = torch.randn(60, 50, generator=torch.Generator().manual_seed(3))
    (packed() * target).sum().backward()  # the gradient by the dense weight is `target`
    assert packed.values.grad is not None
    if codes:
        wanted = torch.stack([target[given.codes == code].sum() for code in range(16)])  # type: ignore[union-attr]
        wanted[0] = 0.0
        assert torch.allclose(packed.values.grad, wanted, atol=1e-5)
    else:
        assert torch.equal(packed.values.grad[packed.values != 0], target[weight != 0])
    assert bool((packed.values.grad[packed.values == 0] == 0).all())


def test_dense_again_is_what_it_was() -> None:
    dense, packed = sparse_lenet(0.05, codes=False)
    again = with_dense_weights(packed)
    assert torch.equal(tensor_of(again.body, WEIGHTS[0]), tensor_of(dense.body, WEIGHTS[0]))
    assert dict(again.body.named_parameters()).keys() == dict(dense.body.named_parameters()).keys()


@pytest.mark.parametrize(("density", "codes", "times"), [(0.05, False, 12), (0.05, True, 30), (0.5, False, 1.7)])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_file_shrinks_and_engines_give_the_same_scores(
    density: float, codes: bool, times: float, engine: str, tmp_path: Path
) -> None:
    dense, packed = sparse_lenet(density, codes=codes)
    inputs = {"image": torch.rand(8, 1, 28, 28)}
    large = export_onnx(dense, inputs, tmp_path / "dense")
    small = export_onnx(packed, inputs, tmp_path / "packed")
    assert large.bytes / small.bytes > times
    with torch.no_grad():
        wanted = dense(**inputs).numpy()
    prepared = find_engine(engine).prepare(small.path, threads=1)
    assert np.allclose(prepared.run({"image": inputs["image"].numpy()}), wanted, rtol=1e-4, atol=1e-5)


def test_onnx_runtime_folds_all_of_it(tmp_path: Path) -> None:
    _, packed = sparse_lenet(0.05, codes=True)
    exported = export_onnx(packed, {"image": torch.rand(8, 1, 28, 28)}, tmp_path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(exported.path), options)
    folded = onnx.load(options.optimized_model_filepath, load_external_data=False)
    assert {node.op_type for node in folded.graph.node} <= {"FusedGemm", "Gemm", "Reshape"}


def test_a_bundle_may_hold_them(tmp_path: Path) -> None:
    _, packed = sparse_lenet(0.05, codes=True)
    exported = export_onnx(packed, {"image": torch.rand(8, 1, 28, 28)}, tmp_path)
    model = onnx.load(exported.path)
    check_bounds(model.graph, model.opset_import[0].version, "model.onnx")
