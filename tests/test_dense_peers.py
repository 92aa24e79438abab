"""Every peer runs on a small net of convolutions and on an MLP, and gives what it claims to give."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import dense_peers
from flyweight.cost.macs import count_macs
from flyweight.engines.executed import integer_share
from flyweight.engines.export import export_onnx
from flyweight.zoo.models.resnet import ResNet

for package in ("nncf", "openvino", "torchao", "torch_pruning"):
    pytest.importorskip(package, reason=f"{package} is not installed (flyweight[bench])")


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, image):
        return self.net(image)


MODELS = {"mlp": (Mlp, (64,)), "resnet": (lambda: ResNet(widths=(16, 32, 64)), (3, 16, 16))}


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory):
    torch.manual_seed(0)
    make, shape = MODELS[request.param]
    model, images = make().eval(), torch.rand(32, *shape)
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    path = export_onnx(model, {"image": images[:4]}, tmp_path_factory.mktemp(request.param)).path
    with torch.no_grad():
        return request.param, model, images, last, path, model(image=images)


QUANTISERS = {
    "nncf in OpenVINO": lambda path, data, folder: dense_peers.nncf_int8(path, data, folder, rows=32),
    "nncf in ONNX": lambda path, data, folder: dense_peers.nncf_int8(path, data, folder, backend="onnx", rows=32),
    "onnxruntime": lambda path, data, folder: dense_peers.ort_int8(path, data, folder, rows=32),
}


@pytest.mark.parametrize("name", QUANTISERS)
def test_a_quantiser_gives_a_smaller_file_that_stays_close(name, case, tmp_path):
    _, _, images, _, path, wanted = case
    made = QUANTISERS[name](path, [{"image": images.numpy()}], tmp_path)
    one = dense_peers.contender_of_file(name, made)
    far = (torch.from_numpy(one.run({"image": images.numpy()})) - wanted).abs().max() / wanted.abs().max()
    assert 0 < far < 0.15
    assert one.bytes < 0.9 * dense_peers.contender_of_file("original", path).bytes
    assert one.kernels


def test_nncf_in_openvino_runs_in_integers(case, tmp_path):
    made = dense_peers.nncf_int8(case[4], [{"image": case[2].numpy()}], tmp_path, rows=32)
    whole, products = integer_share(dense_peers.contender_of_file("nncf", made).kernels)
    assert whole == products > 0


@pytest.mark.parametrize("weight_only", [False, True])
def test_torchao_holds_linear_layers_in_integers(case, weight_only):
    name, model, images, _, _, wanted = case
    one = dense_peers.contender_of_module("torchao", dense_peers.torchao_int8(model, weight_only=weight_only))
    torch.testing.assert_close(torch.from_numpy(one.run({"image": images.numpy()})), wanted, atol=0.05, rtol=0.1)
    if name == "mlp":
        assert one.bytes < 0.5 * dense_peers.contender_of_module("original", model).bytes


def test_onnxruntime_dynamic_runs(case, tmp_path):
    one = dense_peers.contender_of_file("dynamic", dense_peers.ort_dynamic(case[4], tmp_path))
    torch.testing.assert_close(torch.from_numpy(one.run({"image": case[2].numpy()})), case[5], atol=0.05, rtol=0.1)


@pytest.mark.parametrize("saliency", ["l1", "taylor"])
def test_torch_pruning_meets_the_work_and_leaves_the_model_alone(case, saliency):
    _, model, images, last, _, wanted = case
    inputs, labels = {"image": images}, torch.zeros(len(images), dtype=torch.int64)
    if saliency == "l1":
        made = dense_peers.torch_pruning_l1(model, inputs, 0.6, ignored=[last], multiple=2)
    else:
        made = dense_peers.torch_pruning_taylor(
            model, [(inputs, labels)], 0.6, loss=F.cross_entropy, ignored=[last], multiple=2
        )
    one = {"image": images[:1]}
    assert 0.3 < count_macs(made, one).total / count_macs(model, one).total <= 0.62
    assert made(image=images).shape == wanted.shape
    torch.testing.assert_close(model(image=images), wanted)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_rows_come_one_by_one_and_no_more_than_asked():
    rows = list(dense_peers.rows_of([{"x": torch.arange(4).numpy()}, {"x": torch.arange(4, 9).numpy()}], 6))
    assert [int(row["x"][0]) for row in rows] == list(range(6))
