"""An ONNX file comes back as a module with the same outputs, for any number of rows, or is refused by name."""

import copy
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_cases
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import flyweight as fw
import small_tasks
from flyweight.engines.export import export_onnx
from flyweight.errors import InputError
from flyweight.graph.from_onnx import from_onnx
from flyweight.graph.onnx_import.table import OPERATORS
from flyweight.graph.trace import trace
from flyweight.task.scores import evaluating

sys.path.append(str(Path(__file__).parent.parent / "engines"))
from exportable import MODELS, floats

CLOSE = 1e-5


def written(nodes: list[onnx.NodeProto], path: Path, *, opset: int = 20, **constants: np.ndarray) -> Path:
    """Write a file with input x (rows, 4), output y, and constants."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def engine_outputs(path: Path, **inputs: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


@pytest.mark.parametrize("name", MODELS)
def test_our_exports_come_back_with_the_same_scores(name: str, tmp_path: Path) -> None:
    make, batch = MODELS[name]
    model = make().eval()
    imported = from_onnx(export_onnx(model, batch(4), tmp_path).path)
    traced = trace(imported, batch(4))
    again = from_onnx(export_onnx(imported, batch(4), tmp_path / "again").path)
    for rows in (1, 7):
        wanted = model(**batch(rows))
        for other in (imported, traced, again):
            torch.testing.assert_close(other(**batch(rows)), wanted, atol=CLOSE, rtol=CLOSE)


def test_layers_have_the_modules_and_names_they_had(tmp_path: Path) -> None:
    make, batch = MODELS["ranker"]
    model = make().eval()
    imported = from_onnx(export_onnx(model, batch(4), tmp_path).path)
    kinds = {name: type(module) for name, module in imported.named_modules() if not list(module.children())}
    assert kinds == {
        **dict.fromkeys(("user", "item", "tags"), nn.Embedding),  # the bag's sum is an operator of its own
        **dict.fromkeys(("mlp.0", "mlp.4"), nn.Linear),  # the batch norm is folded by the export
    }
    assert torch.equal(imported.get_parameter("user.weight"), model.user.weight)


def test_the_standards_own_cases_give_the_standards_numbers(tmp_path: Path) -> None:
    """What is refused has its reason, what runs is right."""
    passed: Counter[str] = Counter()
    refused: set[str] = set()
    for case in onnx_cases.cases():
        for baked in (False, True):
            try:
                onnx_cases.check(case, tmp_path / "case.onnx", baked=baked)
            except InputError as refusal:
                refused.add(str(refusal))
            else:
                passed.update({node.op_type for node in case.model.graph.node})
    assert all(" cannot be " in words or "operator set" in words for words in refused)
    elsewhere = {"Grid", "GRU", "ConstantOfShape", "Not"}  # their cases have no input, or forms that torch has not
    assert set(OPERATORS) - set(passed) <= elsewhere | {"Range"}, set(OPERATORS) - set(passed)
    assert sum(passed.values()) > 600


class Attention(nn.Module):
    """Softmax under a mask of minus infinity, a tied table, position embeddings and slices."""

    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Embedding(30, 8)
        self.place = nn.Parameter(floats(1, 5, 8))
        self.project = nn.Linear(8, 24)
        self.mask = nn.Buffer(torch.full((5, 5), float("-inf")).triu(1))

    def forward(self, history: Tensor) -> Tensor:
        x = self.item(history) + self.place  # (rows, 5, 8)
        q, k, v = self.project(x).chunk(3, -1)
        weight = torch.softmax(q @ k.transpose(1, 2) / 8**0.5 + self.mask, -1)
        return (weight @ v)[:, -1] @ self.item.weight.T  # (rows, 30)


def test_masks_and_tied_tables_survive_and_train(tmp_path: Path) -> None:
    model, batch = Attention().eval(), {"history": torch.arange(20).reshape(4, 5)}
    imported = from_onnx(export_onnx(model, batch, tmp_path).path)
    assert all(bool(torch.isfinite(one).all()) for one in [*imported.parameters(), *imported.buffers()])
    torch.testing.assert_close(imported(**batch), model(**batch), atol=CLOSE, rtol=CLOSE)
    before = copy.deepcopy(imported.state_dict())
    optimizer = torch.optim.SGD(imported.parameters(), lr=0.1)
    imported(**batch).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in imported.state_dict().items() if not torch.equal(before[name], value)}
    assert {"item.weight", "place", "project.bias"} <= changed


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_quantised_file_gives_the_engines_outputs_and_is_written_quantised_again(
    tmp_path: Path, per_channel: bool
) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{"image": floats(16, 3, 8, 8).numpy()}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    make, batch = MODELS["images"]
    plain = export_onnx(make().eval(), batch(4), tmp_path, name="plain").path
    path = tmp_path / "int8.onnx"
    settings = {"per_channel": per_channel, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(plain, path, Batches(), quant_format=QuantFormat.QDQ, **settings)
    imported, inputs = from_onnx(path), batch(6)
    torch.testing.assert_close(imported(**inputs), engine_outputs(path, **inputs), atol=5e-3, rtol=0)
    again = export_onnx(imported, inputs, tmp_path, name="again").path
    torch.testing.assert_close(from_onnx(again)(**inputs), imported(**inputs), atol=CLOSE, rtol=CLOSE)
    model = onnx.load(again)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
    assert TensorProto.INT8 in {tensor.data_type for tensor in model.graph.initializer}


def test_a_dynamically_quantised_file_gives_the_engines_outputs(tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    make, batch = MODELS["probability"]
    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(export_onnx(make().eval(), batch(4), tmp_path).path, path)
    torch.testing.assert_close(from_onnx(path)(**batch(5)), engine_outputs(path, **batch(5)), atol=1e-4, rtol=0)


def test_a_task_takes_an_imported_model_and_compresses_it(tmp_path: Path) -> None:
    task = small_tasks.trained_task(small_tasks.seeded(small_tasks.Ranker))
    inputs, _, _ = next(task.batches("train"))
    imported = fw.from_onnx(export_onnx(task.model, inputs, tmp_path).path)
    with evaluating(task.model):
        np.testing.assert_allclose(
            task.scores("test", imported).outputs, task.scores("test").outputs, atol=CLOSE, rtol=CLOSE
        )
    own = fw.Task(imported, task.inputs, task.train, task.validation, task.test)
    change = fw.EncodeTables(bits_per_row=4).apply(own)
    assert "item" in {line.get("name", "").removesuffix(".weight") for line in change.done}


def test_sizes_stay_symbolic_through_arithmetic(tmp_path: Path) -> None:
    """The rows go through Shape, Gather, Mul, Div, Concat, Reshape and back, as old exporters write a flatten."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Mul", ["rows", "four"], ["many"]),
        helper.make_node("Unsqueeze", ["many", "axis"], ["long"]),
        helper.make_node("Reshape", ["x", "long"], ["flat"]),
        helper.make_node("Div", ["many", "two"], ["half"]),
        helper.make_node("Unsqueeze", ["half", "axis"], ["listed"]),
        helper.make_node("Concat", ["listed", "pair"], ["target"], axis=0),
        helper.make_node("Reshape", ["flat", "target"], ["pairs"]),
        helper.make_node("ReduceSum", ["pairs", "last"], ["sums"], keepdims=0),
        helper.make_node("Reshape", ["sums", "wide"], ["y"]),
    ]
    constants = {"zero": np.int64(0), "four": np.int64(4), "two": np.int64(2), "axis": [0], "pair": [2], "last": [1]}
    arrays = {name: np.array(value, dtype=np.int64) for name, value in constants.items()}
    path = written(nodes, tmp_path / "m.onnx", wide=np.array([-1, 2], dtype=np.int64), **arrays)
    traced = trace(from_onnx(path), {"x": floats(3, 4)})
    x = floats(9, 4)
    torch.testing.assert_close(traced(x=x), x.reshape(9, 2, 2).sum(-1))


@pytest.mark.parametrize(("opset", "axis"), [(11, 1), (13, -1)])
def test_softmax_and_squeeze_follow_the_files_operator_set(tmp_path: Path, opset: int, axis: int) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["p"], axis=axis), helper.make_node("Relu", ["p"], ["y"])]
    path = written(nodes, tmp_path / "m.onnx", opset=opset)
    torch.testing.assert_close(from_onnx(path)(x=floats(3, 4)), torch.softmax(floats(3, 4), 1))


def foreign(path: Path) -> Path:
    return written([helper.make_node("FusedThing", ["x"], ["y"], name="deep/fused", domain="com.other")], path)


def branching(path: Path) -> Path:
    body = helper.make_graph([], "b", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)])
    node = helper.make_node("If", ["yes"], ["y"], name="fork", then_branch=body, else_branch=body)
    return written([node], path, yes=np.array(True))


def outside(path: Path) -> Path:
    written([helper.make_node("Add", ["x", "w"], ["y"])], path, w=np.zeros(4, dtype=np.float32))
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    (path.parent.parent / "secret.bin").write_bytes(bytes(64))
    tensor.external_data.add(key="location", value="../secret.bin")
    path.write_bytes(model.SerializeToString())
    return path


def linked(path: Path) -> Path:
    outside(path)
    model = onnx.load(path, load_external_data=False)
    (path.parent / "data.bin").symlink_to(path.parent.parent / "secret.bin")
    model.graph.initializer[0].external_data[0].value = "data.bin"
    path.write_bytes(model.SerializeToString())
    return path


def hungry(path: Path) -> Path:
    sizes = np.array([2**40, 2**20], dtype=np.int64)
    return written([helper.make_node("ConstantOfShape", ["w"], ["y"], name="huge")], path, w=sizes)


def damaged(path: Path) -> Path:
    path.write_bytes(b"\xff" * 100)
    return path


def unordered(path: Path) -> Path:
    nodes = [helper.make_node("Add", ["x", "late"], ["y"], name="early"), helper.make_node("Relu", ["x"], ["late"])]
    return written(nodes, path)


def ancient(path: Path) -> Path:
    return written([helper.make_node("Relu", ["x"], ["y"])], path, opset=5)


def misfit(path: Path) -> Path:
    return written([helper.make_node("MatMul", ["x", "w"], ["y"], name="wide")], path, w=np.ones((5, 3), np.float32))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (foreign, ["com.other.FusedThing", "deep/fused"]),
        (branching, ["If (1x)", "'fork'", "Branches"]),
        (outside, ["'../secret.bin'", "outside"]),
        (linked, ["'data.bin'", "outside"]),
        (hungry, ["ConstantOfShape", "'huge'", "1,073,741,824"]),
        (damaged, ["no ONNX file"]),
        (unordered, ["'early'", "'late'"]),
        (ancient, ["operator set [5]", "version_converter"]),
        (misfit, ["MatMul", "'wide'"]),
        (lambda path: path / "nowhere.onnx", ["no ONNX file at"]),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(
    make: Callable[[Path], Path], words: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = make(folder / "m.onnx")
    with pytest.raises(InputError) as caught:
        from_onnx(path)(x=floats(2, 4))
    assert all(word in str(caught.value) for word in words), caught.value


def test_one_of_several_outputs_must_be_chosen(tmp_path: Path) -> None:
    path = written([helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])], tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    onnx.save(model, path)
    torch.testing.assert_close(from_onnx(path, output="z")(x=floats(2, 4)), -floats(2, 4))
    with pytest.raises(InputError, match="2 outputs \\(y, z\\)"):
        from_onnx(path)
    with pytest.raises(TypeError, match="inputs are x; seen x2"):
        from_onnx(path, output="z")(x2=floats(2, 4))


def test_damaged_files_are_refused_and_never_crash(tmp_path: Path) -> None:
    make, batch = MODELS["images"]
    path = export_onnx(make().eval(), batch(2), tmp_path).path
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        bad = bytearray(whole)
        for place in random.integers(0, len(bad), 3):
            bad[place] = random.integers(0, 256)
        path.write_bytes(bytes(bad))
        try:
            from_onnx(path)(image=floats(2, 3, 8, 8))
        except (InputError, TypeError):  # a TypeError says that the inputs have other names
            refused += 1
    assert refused > 20
