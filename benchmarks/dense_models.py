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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flyweight as fw
from flyweight.cost.hardware import describe_hardware
from flyweight.cost.macs import count_macs
from flyweight.quality.intervals import estimate
from flyweight.zoo.beauty_sasrec import beauty_sasrec, trained_sasrec
from flyweight.zoo.image_classifiers import LENET, SIGNS, XRAYS, Classifier, classifier_task, trained_classifier

RESULTS = Path(__file__).parent / "results" / "dense_bases.json"
SEEDS = (0, 1, 2)


def lenet_task(seed: int = 0, copies: int = 1) -> fw.Task:
    """Return LeNet-300-100 on MNIST: 55,000 digits to train on, 5,000 for validation, 10,000 for the certificate.

    Args:
        seed: of the base model's training.
        copies: how often an image comes in one pass of `train`, every time but the first distorted: what the base
            was trained with, for a recovery that should not forget it.
    """
    return classifier_task(LENET, _epochs, seed=seed, copies=copies)


def gtsrb_task(seed: int = 0, copies: int = 1) -> fw.Task:
    """Return the small ResNet on traffic signs; validation has tracks of its own. Arguments as `lenet_task`."""
    return classifier_task(SIGNS, _epochs, seed=seed, copies=copies)


def pneumonia_task(seed: int = 0, copies: int = 1) -> fw.Task:
    """Return the small ResNet on chest x-rays, two outputs an image. Arguments as `lenet_task`."""
    return classifier_task(XRAYS, _epochs, seed=seed, copies=copies)


def sasrec_task(seed: int = 0) -> fw.Task:
    """Return SASRec on Amazon Beauty, the zoo's "beauty-sasrec"."""
    return beauty_sasrec(_epochs, seed)


@dataclass(frozen=True)
class Base:
    """A case: its task by seed, and the seconds of processor time that its training took."""

    task: Callable[[int], fw.Task]
    seconds: Callable[[int], float]


def _epochs(label: str, done: int, total: int) -> None:
    """Print every fourth epoch."""
    if done % 4 == 0:
        print(f"{label}: epoch {done} of {total}", file=sys.stderr, flush=True)


def _seconds(one: Classifier) -> Callable[[int], float]:
    return lambda seed: trained_classifier(one, _epochs, seed=seed)[1]


#: The cases by name.
BASES: dict[str, Base] = {
    "lenet": Base(lenet_task, _seconds(LENET)),
    "gtsrb": Base(gtsrb_task, _seconds(SIGNS)),
    "pneumonia": Base(pneumonia_task, _seconds(XRAYS)),
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
