"""The base models of the dense benchmarks, trained and kept, as tasks.

    python benchmarks/dense_models.py --train lenet 0 1 2   # train these seeds, or find that they are kept
    python benchmarks/dense_models.py                       # measure all on their test data; writes dense_bases.json
    python benchmarks/dense_models.py --measure lenet 0     # measure one of them

Choices of training were made on validation data; the test data are read by the second command and by certificates.
"""

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import flyweight as fw
from dense_data import Images, Splits, gtsrb, mnist, pneumonia
from dense_training import fit_images
from flyweight.cost.hardware import describe_hardware
from flyweight.cost.macs import count_macs
from flyweight.quality.intervals import estimate
from flyweight.quality.measure import measure as quality_of
from flyweight.task.metric import find_metric
from flyweight.task.scores import evaluating
from flyweight.zoo.beauty_sasrec import beauty_sasrec, trained_sasrec
from flyweight.zoo.models.lenet import LeNet300100
from flyweight.zoo.models.resnet import ResNet
from flyweight.zoo.recipe import Recipe, trained_once

RESULTS = Path(__file__).parent / "results" / "dense_bases.json"
SEEDS = (0, 1, 2)
LENET = Recipe(epochs=40, rate=0.002, decay=0.05, batch=256)
GTSRB = Recipe(epochs=45, rate=0.004, decay=0.05, smoothing=0.1, bfloat16=True)
PNEUMONIA = Recipe(epochs=20, rate=0.002, decay=0.05, smoothing=0.1, bfloat16=True)


def new_lenet() -> nn.Module:
    """Return an untrained LeNet-300-100."""
    return LeNet300100()


def new_gtsrb() -> nn.Module:
    """Return the untrained network of the traffic signs: 12 million multiply-accumulates an image."""
    return ResNet(channels=3, classes=43, widths=(32, 64, 128), stem_stride=2)


def new_pneumonia() -> nn.Module:
    """Return the untrained network of the chest x-rays: 37 million multiply-accumulates an image."""
    return ResNet(channels=1, classes=2, widths=(32, 64, 128))


def lenet_task(seed: int = 0, copies: int = 1) -> fw.Task:
    """Return LeNet-300-100 on MNIST: 55,000 digits to train on, 5,000 for validation, 10,000 for the certificate.

    Args:
        seed: of the base model's training.
        copies: how often an image comes in one pass of `train`, every time but the first distorted: what the base
            was trained with, for a recovery that should not forget it.
    """
    return _image_task("LeNet-300-100 on MNIST", new_lenet, mnist(), replace(LENET, seed=seed), copies)


def gtsrb_task(seed: int = 0, copies: int = 1) -> fw.Task:
    """Return the small ResNet on traffic signs; validation has tracks of its own. Arguments as `lenet_task`."""
    return _image_task("ResNet on traffic signs", new_gtsrb, gtsrb(), replace(GTSRB, seed=seed), copies)


def pneumonia_task(seed: int = 0, copies: int = 1) -> fw.Task:
    """Return the small ResNet on chest x-rays, two outputs an image. Arguments as `lenet_task`."""
    return _image_task("ResNet on chest x-rays", new_pneumonia, pneumonia(), replace(PNEUMONIA, seed=seed), copies)


def sasrec_task(seed: int = 0) -> fw.Task:
    """Return SASRec on Amazon Beauty, the zoo's "beauty-sasrec"."""
    return beauty_sasrec(_epochs, seed)


@dataclass(frozen=True)
class Base:
    """A case: its task by seed, and the seconds of processor time that its training took."""

    task: Callable[[int], fw.Task]
    seconds: Callable[[int], float]


def _image_task(name: str, make: Callable[[], nn.Module], data: Splits, recipe: Recipe, copies: int) -> fw.Task:
    return fw.Task(
        model=_trained_images(make, data, recipe)[0],
        inputs={"image": fw.Field(role="sample")},
        train=data.train.with_copies(copies),
        validation=data.validation,
        test=data.test,
        metric="accuracy",
        output="columns",
        name=name,
    )


def _trained_images(make: Callable[[], nn.Module], data: Splits, recipe: Recipe) -> tuple[nn.Module, float]:
    train: Images = data.train
    key, watch = f"{data.fingerprint} {train.distortion}", partial(_tell, data.validation, "accuracy")
    return trained_once(make, lambda model, recipe: fit_images(model, train, recipe, watch), recipe, key)


def _epochs(label: str, done: int, total: int) -> None:
    """Print every fourth epoch."""
    if done % 4 == 0:
        print(f"{label}: epoch {done} of {total}", file=sys.stderr, flush=True)


def _tell(split: Any, metric: str, epoch: int, model: nn.Module) -> None:
    """Print the metric on validation data after every fourth epoch: training takes minutes."""
    if epoch % 4 != 3:
        return
    with evaluating(model), torch.no_grad():
        parts = [(model(**inputs), target) for inputs, target in split]
    outputs, targets = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    value = quality_of(find_metric(metric), outputs, targets)
    print(f"epoch {epoch + 1}: validation {metric} {value:.4f}", file=sys.stderr, flush=True)


def _image_seconds(make: Callable[[], nn.Module], splits: Callable[[], Splits], recipe: Recipe, seed: int) -> float:
    return _trained_images(make, splits(), replace(recipe, seed=seed))[1]


#: The cases by name.
BASES: dict[str, Base] = {
    "lenet": Base(lenet_task, partial(_image_seconds, new_lenet, mnist, LENET)),
    "gtsrb": Base(gtsrb_task, partial(_image_seconds, new_gtsrb, gtsrb, GTSRB)),
    "pneumonia": Base(pneumonia_task, partial(_image_seconds, new_pneumonia, pneumonia, PNEUMONIA)),
    "sasrec": Base(sasrec_task, lambda seed: trained_sasrec(seed, _epochs)[1]),
}


def measure(name: str, seed: int) -> dict[str, Any]:
    """Return the test quality of one base with its interval, its size and what its training cost."""
    task = BASES[name].task(seed)
    scores = task.scores("test")
    quality = estimate(task.spec, scores.outputs, scores.targets)
    inputs, _ = next(iter(task.validation))
    return {
        "case": name,
        "seed": seed,
        "metric": task.spec.name,
        **{key: getattr(quality, key) for key in ("value", "low", "high", "n", "method")},
        "parameters": sum(weight.numel() for weight in task.model.parameters()),
        "macs": count_macs(task.model, {key: value[:1] for key, value in inputs.items()}).total,
        "training_cpu_seconds": round(BASES[name].seconds(seed), 1),
    }


def main(words: list[str]) -> None:
    """Train what is named, or measure it (everything where nothing is named) and put it into the JSON."""
    names, seeds = words[1:2] or list(BASES), tuple(map(int, words[2:])) or SEEDS
    if words[:1] == ["--train"]:
        for name, seed in itertools.product(names, seeds):
            BASES[name].seconds(seed)
        return
    for name, seed in itertools.product(names, seeds):
        _put(measure(name, seed))


def _put(row: dict[str, Any]) -> None:
    kept = json.loads(RESULTS.read_text())["bases"] if RESULTS.exists() else []
    rows = [row, *(old for old in kept if (old["case"], old["seed"]) != (row["case"], row["seed"]))]
    rows.sort(key=lambda row: (list(BASES).index(row["case"]), row["seed"]))
    RESULTS.write_text(json.dumps({"hardware": describe_hardware(), "bases": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
