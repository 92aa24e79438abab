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
from dense_data import Images, Splits, beauty, gtsrb, mnist, pneumonia, read_sequences
from dense_training import Recipe, fit_histories, fit_images, trained
from flyweight.cost.hardware import describe_hardware
from flyweight.cost.macs import count_macs
from flyweight.quality.intervals import estimate
from flyweight.quality.measure import measure as quality_of
from flyweight.task.metric import find_metric
from flyweight.task.scores import evaluating
from flyweight.zoo.lenet import LeNet300100
from flyweight.zoo.resnet import ResNet
from flyweight.zoo.sasrec import SASRec

RESULTS = Path(__file__).parent / "results" / "dense_bases.json"
SEEDS = (0, 1, 2)
LENET = Recipe(epochs=40, rate=0.002, decay=0.05, batch=256)
GTSRB = Recipe(epochs=45, rate=0.004, decay=0.05, smoothing=0.1, bfloat16=True)
PNEUMONIA = Recipe(epochs=20, rate=0.002, decay=0.05, smoothing=0.1, bfloat16=True)
SASREC = Recipe(epochs=24, rate=0.003, decay=0.02, batch=256, negatives=512)


def new_lenet() -> nn.Module:
    """Return an untrained LeNet-300-100."""
    return LeNet300100()


def new_gtsrb() -> nn.Module:
    """Return the untrained network of the traffic signs: 12 million multiply-accumulates an image."""
    return ResNet(channels=3, classes=43, widths=(32, 64, 128), stem_stride=2)


def new_pneumonia() -> nn.Module:
    """Return the untrained network of the chest x-rays: 37 million multiply-accumulates an image."""
    return ResNet(channels=1, classes=2, widths=(32, 64, 128))


def new_sasrec() -> nn.Module:
    """Return an untrained SASRec: two blocks of width 64 with four heads, over Amazon Beauty's 12,101 items."""
    return SASRec(items=12_102, length=50, dim=64, blocks=2, heads=4, hidden=256, dropout=0.5)


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
    """Return SASRec on Amazon Beauty: recall at 10 among all items, those of the history not left out.

    Each user is one row of the test, so rows are independent. The target is the item's id, and column 0 of the scores
    stands for "no item".
    """
    data = beauty()
    return fw.Task(
        model=_trained_sasrec(data, seed)[0],
        inputs={"history": fw.Field(role="request", rows=12_102)},
        train=data.train,
        validation=data.validation,
        test=data.test,
        metric="recall@10",
        output="columns",
        name="SASRec on Amazon Beauty",
    )


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
    return trained(make, lambda model, recipe: fit_images(model, train, recipe, watch), recipe, key)


def _trained_sasrec(data: Splits, seed: int) -> tuple[nn.Module, float]:
    sequences = [items[:-2] for items in read_sequences()]  # the last two are the test's and validation's
    recipe = replace(SASREC, seed=seed)
    watch = partial(_tell, data.validation.head(2_000), "recall@10")
    return trained(
        new_sasrec, lambda model, recipe: fit_histories(model, sequences, recipe, watch), recipe, data.fingerprint
    )


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
    "sasrec": Base(sasrec_task, lambda seed: _trained_sasrec(beauty(), seed)[1]),
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
