"""The step on rankers, images and sequences: what it does, what it leaves, and the file against the simulation."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import flyweight as fw
from flyweight.engines.export import export_onnx
from flyweight.errors import InputError
from flyweight.quantization.quantize import Quantize
from flyweight.task.change import Change
from small_tasks import Ranker, seeded, trained_task


class Block(nn.Module):
    """A residual block; the second one of two changes the width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        self.two = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.across = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(F.relu(self.norm(self.one(x)))) + self.across(x))


class Images(nn.Module):
    """A small residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2)
        self.blocks, self.head = nn.Sequential(Block(8, 8), Block(8, 16)), nn.Linear(16, 4)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.pool(F.relu(self.first(image))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Sequences(nn.Module):
    """A transformer block over a history, scores tied to the table."""

    def __init__(self, items: int = 40, dim: int = 16) -> None:
        super().__init__()
        self.item, self.place = nn.Embedding(items, dim), nn.Parameter(0.1 * torch.randn(6, dim))
        self.norm, self.attention = nn.LayerNorm(dim), nn.MultiheadAttention(dim, 2, batch_first=True)
        self.wide, self.narrow = nn.Linear(dim, 32), nn.Linear(32, dim)

    def forward(self, history: Tensor) -> Tensor:
        x = self.item(history) + self.place
        query = self.norm(x)
        x = x + self.attention(query, query, query, need_weights=False)[0]
        x = x + self.narrow(F.gelu(self.wide(x)))
        return x[:, -1] @ self.item.weight.T


def a_task(model: nn.Module, inputs: dict[str, Tensor], metric: str = "accuracy") -> fw.Task:
    """A task whose targets are the float model's own answers."""
    with torch.no_grad():
        target = model(**inputs).argmax(1)
    data = [({name: value[at : at + 64] for name, value in inputs.items()}, target[at : at + 64]) for at in (0, 64)]
    rows = 40 if next(iter(inputs)) == "history" else None
    fields = {name: fw.Field(rows=rows) for name in inputs}
    return fw.Task(model=model, inputs=fields, train=data, validation=data, test=data, metric=metric)


def images() -> fw.Task:
    model = seeded(Images)
    for _ in range(5):  # batch norm learns its statistics
        model.train()(torch.randn(64, 3, 12, 12))
    return a_task(model.eval(), {"image": torch.randn(128, 3, 12, 12, generator=torch.Generator().manual_seed(0))})


def sequences() -> fw.Task:
    ids = torch.randint(0, 40, (128, 6), generator=torch.Generator().manual_seed(0))
    return a_task(seeded(Sequences).eval(), {"history": ids})


def keras() -> fw.Task:
    class Dense(nn.Module):
        """Two dense layers as Keras writes them: a product with (in, out), and a sum."""

        def __init__(self) -> None:
            super().__init__()
            self.kernel, self.bias = nn.Parameter(torch.randn(12, 16)), nn.Parameter(torch.randn(16))
            self.last = nn.Parameter(torch.randn(16, 4))

        def forward(self, x: Tensor) -> Tensor:
            return torch.matmul(torch.relu(torch.matmul(x, self.kernel) + self.bias), self.last)

    return a_task(seeded(Dense).eval(), {"x": torch.randn(128, 12, generator=torch.Generator().manual_seed(0))})


TASKS = {"images": images, "sequences": sequences, "keras": keras, "ranker": lambda: trained_task(seeded(Ranker))}


def outputs(model: nn.Module, task: fw.Task) -> Tensor:
    inputs = next(task.batches("validation"))[0]
    with torch.no_grad():
        return model(**inputs)


def far(one: Tensor, other: Tensor) -> float:
    """Root mean square difference, in standard deviations."""
    return float((one - other).square().mean().sqrt() / other.std())


@cache
def quantised(name: str) -> tuple[fw.Task, Change]:
    task = TASKS[name]()
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    change = Quantize(mixed=False).apply(task)
    assert all(torch.equal(value, before[key]) for key, value in task.model.state_dict().items())
    return task, change


@pytest.mark.parametrize("name", TASKS)
def test_int8_lies_near_the_float_model(name: str) -> None:
    task, change = quantised(name)
    assert 0 < far(outputs(change.model, task), outputs(task.model, task)) < 0.04
    layers = [one for one in change.done if one["what"] == "layer"]
    assert {one["to"] for one in layers} == {"int8"}
    for one in layers:  # the table that scores are tied to stays beside the integers
        kept = one["bytes_before"] if one["name"] == "item" else 0
        assert one["bytes_after"] == one["bytes_before"] // 4 + 4 * one["scales"] + kept
    assert all(one["error"] < 1e-3 for one in layers)


@pytest.mark.parametrize("name", TASKS)
def test_the_file_holds_the_weights_as_int8_and_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    task, change = quantised(name)
    inputs = next(task.batches("validation"))[0]
    path = export_onnx(change.model, inputs, tmp_path).path
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {key: value.numpy() for key, value in inputs.items()})
    assert far(torch.from_numpy(scores), outputs(change.model, task)) < 0.01  # ties may fall the other way
    stored = [tensor for tensor in onnx.load(path).graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    sizes = sorted(int(np.prod(tensor.dims)) for tensor in stored if len(tensor.dims) > 1)
    assert sizes == sorted(one["bytes_before"] // 4 for one in change.done if one["what"] == "layer")


def test_what_stays_in_floating_point_is_said() -> None:
    skipped = {one.what: one.why for one in quantised("sequences")[1].skipped}
    assert "two activations" in skipped["attention"]
    assert "table" in skipped["item"]


def test_four_bits_by_group_err_more_than_eight_and_less_than_one_group() -> None:
    task = sequences()
    errors = []
    for size in (4, 16):
        done = Quantize(weights="int4", group_size=size, mixed=False).apply(task).done
        errors.append(sum(one["error"] for one in done if one["what"] == "layer"))
    eight = sum(one["error"] for one in quantised("sequences")[1].done if one["what"] == "layer")
    assert eight < errors[0] < errors[1] < 0.2


def test_groups_that_do_not_divide_are_refused_with_the_numbers() -> None:
    task = trained_task(seeded(Ranker))
    with pytest.raises(InputError, match=r"'mlp.0' has 17 inputs; .*17 = 0 \* 32 \+ 17"):
        Quantize(weights="int4").apply(task)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weights": "int7"}, "weights must be one of .*'int8', 'int4'; seen 'int7'"),
        ({"activations": "int4"}, "activations must be one of 'int8', None; seen 'int4'"),
        ({"ranges": "max"}, "ranges must be one of 'mse', 'minmax', 'percentile'"),
        ({"group_size": 1}, "group_size must be a whole number of at least 2; seen 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Quantize(**settings)  # type: ignore[arg-type]


class Reciprocal(nn.Module):
    """Divides by what a layer gives: by zero where a small input is rounded to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return 1.0 / self.layer(x)


def test_a_model_that_breaks_is_taken_back_with_the_reason() -> None:
    x = torch.randn(128, 4, generator=torch.Generator().manual_seed(0))
    x[:100] *= 1e-4
    task = a_task(seeded(Reciprocal).eval(), {"x": x})
    change = Quantize(ranges="minmax", bias_correction=False, mixed=False).apply(task)
    assert change.model is task.model
    assert not change.done
    assert "outputs are NaN or infinite; the step was taken back" in change.skipped[-1].why


def test_a_model_without_layers_is_left() -> None:
    class Sum(nn.Module):
        """Has nothing to round."""

        def forward(self, x: Tensor) -> Tensor:
            return x + x.flip(1)

    change = Quantize().apply(a_task(Sum(), {"x": torch.randn(128, 4)}))
    assert not change.done
    assert "no layer with a weight of its own" in change.skipped[-1].why


def test_rounding_twice_is_refused_layer_by_layer() -> None:
    task, change = quantised("images")
    again = Quantize(mixed=False).apply(task.with_model(change.model))
    assert not again.done
    assert {one.why for one in again.skipped if one.what != "the model"} == {"it is quantised already"}
