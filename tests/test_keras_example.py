"""The Keras example: its model traces to named layers, and the whole recipe runs on small digits."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLE = Path(__file__).parent.parent / "examples" / "keras_mnist.py"

if "keras" in sys.modules and os.environ.get("KERAS_BACKEND") != "torch":
    pytest.skip("keras was imported before with another backend", allow_module_level=True)
os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras", reason="keras is not installed (flyweight[keras])")

from flyweight.graph.trace import trace  # noqa: E402  # keras has to be there first
from flyweight.graph.traced import module_of  # noqa: E402


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("keras_mnist", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield module
    torch.set_num_threads(threads)


def test_a_keras_model_traces_to_linear_layers_under_their_own_names():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "relu", name="first"), keras.layers.Dense(3)])
    traced = trace(model, {"inputs": torch.rand(4, 6)})
    linear = [node for node in traced.body.graph.nodes if node.target is torch.ops.aten.linear.default]
    assert module_of(linear[0]).endswith("first")
    shapes = {name.rpartition("body.")[2]: tuple(one.shape) for name, one in traced.named_parameters()}
    assert sorted(shapes.values()) == [(3,), (3, 5), (5,), (5, 6)]
    x = torch.rand(9, 6)
    torch.testing.assert_close(traced(inputs=x), model(x))


def test_changing_a_trace_leaves_the_keras_model_alone():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    before = [np.array(weight) for weight in model.get_weights()]
    traced = trace(model, {"inputs": torch.rand(4, 6)})
    with torch.no_grad():
        for parameter in traced.parameters():
            parameter.zero_()
    for mine, theirs in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_keras_image_model_traces(tmp_path):
    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.MaxPooling2D()]
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(3)])
    images = torch.rand(5, 8, 8, 1)
    torch.testing.assert_close(trace(model, {"inputs": images[:2]})(inputs=images), model(images))


@pytest.mark.slow
def test_the_whole_recipe_runs_on_small_digits(example, monkeypatch):
    digits = example.digits(Path("no such file"))  # scikit-learn's, made as large as MNIST's
    monkeypatch.setattr(example, "digits", lambda: digits)
    result = example.main(epochs=15, recovery=40.0)  # as the example does without MNIST
    assert result.before.quality.value > 0.85
    assert result.drop.value < 0.03
    assert result.before.bytes / result.after.bytes > 8
