"""The tasks on images: LeNet on digits, small residual networks on traffic signs and on chest x-rays."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from flyweight.task.field import Field
from flyweight.task.task import Task
from flyweight.zoo.image_data import gtsrb, mnist, pneumonia
from flyweight.zoo.image_training import fit_images
from flyweight.zoo.images import ImageSplits
from flyweight.zoo.models.lenet import LeNet300100
from flyweight.zoo.models.resnet import ResNet
from flyweight.zoo.progress import Progress, silent
from flyweight.zoo.recipe import Recipe, trained_once

#: How often an image comes in one pass of a named task's `train`, all but once distorted: a recovery on the few images
#: as they are would learn them by heart.
COPIES = 4


@dataclass(frozen=True)
class Classifier:
    """A network, the images that it is trained on, and how. Choices of training were made on validation images.

    Args:
        title: what the reports call it.
        make: builds it untrained.
        data: reads the images.
        recipe: of its training.
    """

    title: str
    make: Callable[[], nn.Module]
    data: Callable[[], ImageSplits]
    recipe: Recipe


LENET = Classifier(
    "LeNet-300-100 on MNIST", LeNet300100, mnist, Recipe(epochs=40, rate=0.002, decay=0.05, batch=256)
)
#: 12 million multiply-accumulates an image.
SIGNS = Classifier(
    "ResNet on traffic signs",
    partial(ResNet, channels=3, classes=43, widths=(32, 64, 128), stem_stride=2),
    gtsrb,
    Recipe(epochs=45, rate=0.004, decay=0.05, smoothing=0.1, bfloat16=True),
)
#: 37 million multiply-accumulates an image.
XRAYS = Classifier(
    "ResNet on chest x-rays",
    partial(ResNet, channels=1, classes=2, widths=(32, 64, 128)),
    pneumonia,
    Recipe(epochs=20, rate=0.002, decay=0.05, smoothing=0.1, bfloat16=True),
)


def lenet_300_100(progress: Progress = silent) -> Task:
    """Return LeNet-300-100 on MNIST by accuracy: 55,000 digits train it, 5,000 validate, 10,000 certify.

    The first call trains for about two minutes; later ones read the weights from the cache.

    Raises:
        InputError: the data file is not there; says where it was looked for.
    """
    return classifier_task(LENET, progress)


def traffic_signs(progress: Progress = silent) -> Task:
    """Return a small ResNet on 43 kinds of traffic sign by accuracy; validation has tracks of its own.

    The first call trains for about four minutes. Errors as `lenet_300_100`.
    """
    return classifier_task(SIGNS, progress)


def xrays(progress: Progress = silent) -> Task:
    """Return a small ResNet that says how likely a chest x-ray shows pneumonia, by AUC.

    Of its two outputs one is made, the difference, which is the logit of the softmax over the two: the same
    probabilities. The first call trains for about three minutes. Errors as `lenet_300_100`.
    """
    model, _ = trained_classifier(XRAYS, progress)
    head = model.get_submodule("head")
    assert isinstance(head, nn.Linear)
    model.set_submodule("head", _difference(head))
    data = XRAYS.data()
    return Task(
        model=model,
        inputs={"image": Field(role="sample")},
        train=data.train.with_copies(COPIES),
        validation=data.validation,
        test=data.test,
        metric="auc",
        output="logit",
        name=XRAYS.title,
    )


def classifier_task(one: Classifier, progress: Progress = silent, *, seed: int = 0, copies: int = COPIES) -> Task:
    """Return a classifier, trained or from the cache, as a task by accuracy: an output for each class.

    Args:
        progress: told how far the training is.
        seed: of the training; the splits are the same for every seed.
        copies: how often an image comes in one pass of `train`, every time but the first distorted.
    """
    data = one.data()
    return Task(
        model=trained_classifier(one, progress, seed=seed)[0],
        inputs={"image": Field(role="sample")},
        train=data.train.with_copies(copies),
        validation=data.validation,
        test=data.test,
        metric="accuracy",
        output="columns",
        name=one.title,
    )


def trained_classifier(one: Classifier, progress: Progress = silent, *, seed: int = 0) -> tuple[nn.Module, float]:
    """Return the trained network and the processor seconds that its training took, from the cache where it is kept."""
    data = one.data()

    def fit(model: nn.Module, recipe: Recipe) -> None:
        label = f"Training {one.title}"
        fit_images(model, data.train, recipe, lambda epoch, _: progress(label, epoch + 1, recipe.epochs))

    key = f"{data.fingerprint} {data.train.distortion}"
    return trained_once(one.make, fit, replace(one.recipe, seed=seed), key)


def _difference(head: nn.Linear) -> nn.Linear:
    """Return a layer of one output, the second of two outputs less the first."""
    single = nn.Linear(head.in_features, 1)
    with torch.no_grad():
        single.weight.copy_(head.weight[1:] - head.weight[:1])
        single.bias.copy_(head.bias[1:] - head.bias[:1])
    return single.eval()
