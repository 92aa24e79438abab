"""The well-known Keras MLP for handwritten digits, 784-1024-512-10, pruned, distilled and quantised.

KERAS_BACKEND=torch python examples/keras_mnist.py
"""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"  # before keras is imported: a Keras model is then a torch.nn.Module

import keras
import numpy as np
import torch
from sklearn.datasets import load_digits

import flyweight as fw

DATA = Path(os.environ.get("FLYWEIGHT_DATA", Path(__file__).resolve().parents[1] / "../shared/data")) / "mnist.npz"


def digits(path: Path = DATA) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """MNIST's 60,000 and 10,000 images of 784 numbers; without the file scikit-learn's 1,797 digits, made as large."""
    if path.is_file():
        data = np.load(path)
        images = [data[name].reshape(-1, 784).astype(np.float32) / 255 for name in ("x_train", "x_test")]
        order = np.random.default_rng(0).permutation(len(images[0]))  # some copies of the file are sorted by digit
        return images[0][order], data["y_train"][order], images[1], data["y_test"]
    small = load_digits()
    images = np.kron(small.images, np.ones((4, 4)))[:, 2:30, 2:30].reshape(-1, 784).astype(np.float32) / 16
    return images[:1_200], small.target[:1_200], images[1_200:], small.target[1_200:]


def batches(x: np.ndarray, y: np.ndarray, size: int = 256) -> list[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    images, labels = torch.from_numpy(x).split(size), torch.from_numpy(y.astype(np.int64)).split(size)
    return [({"inputs": image}, label) for image, label in zip(images, labels, strict=True)]


def trained(x: np.ndarray, y: np.ndarray, epochs: int = 3) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((784,)), keras.layers.Dense(1024, activation="relu"), keras.layers.Dropout(0.2),
        keras.layers.Dense(512, activation="relu"), keras.layers.Dropout(0.2), keras.layers.Dense(10),
    ]  # fmt: skip
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    model.fit(x, y, batch_size=256, epochs=epochs, verbose=2)
    return model


def task(epochs: int = 3) -> fw.Task:
    x, y, x_test, y_test = digits()
    held = len(x) // 10
    model = trained(x[held:], y[held:], epochs)
    splits = {"train": batches(x[held:], y[held:]), "validation": batches(x[:held], y[:held])}
    fields = {"inputs": fw.Field(role="sample")}  # a Keras model calls its argument "inputs"
    return fw.Task(model, fields, **splits, test=batches(x_test, y_test), metric="accuracy", name="keras-mnist")


def main(epochs: int = 3, recovery: float = 2.0):
    steps = [fw.Prune(ratio=0.75, saliency="taylor"), fw.Distill(epochs=recovery), fw.Quantize(weights="int8")]
    result = fw.compress(task(epochs), steps=steps)
    print(result)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    # 50 times fewer images need more passes: two over scikit-learn's digits are ten steps, and lose 8 points.
    main() if DATA.is_file() else main(epochs=15, recovery=40.0)
