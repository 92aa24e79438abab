"""Images, their data sets and training: splits that share nothing, distortions that do what they say."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flyweight.errors import FlyweightError, InputError
from flyweight.zoo import image_classifiers, image_data
from flyweight.zoo.cache import fingerprint
from flyweight.zoo.data_files import find_data
from flyweight.zoo.distortion import STILL, Distortion, distorted
from flyweight.zoo.image_training import fit_images
from flyweight.zoo.images import Images
from flyweight.zoo.models.lenet import LeNet300100
from flyweight.zoo.recipe import Recipe, trained_once
from flyweight.zoo.tasks import ZOO

FOLDER = Path(__file__).resolve().parents[2] / "../shared/data"
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason="the benchmark data are not at ../shared/data")


def some_images(rows=10, size=4, **settings):
    """Images of which each pixel tells its image and place, labelled by number."""
    pixels = torch.arange(rows * 36, dtype=torch.int64).remainder(256).to(torch.uint8).view(rows, 1, 6, 6)
    return Images(pixels, torch.arange(rows), size=size, **settings)


def test_images_come_whole_and_in_order():
    images = some_images()
    batches = list(images)
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert len(images) == 3
    values = torch.cat([inputs["image"] for inputs, _ in batches])
    torch.testing.assert_close(values, images.pixels.float() / 255)


def test_copies_hold_each_image_once_as_it_is_and_come_alike_on_every_pass():
    images = some_images(copies=3, distortion=Distortion(light=0.5))
    passes = [[torch.cat(parts) for parts in zip(*((x["image"], y) for x, y in images), strict=True)] for _ in "ab"]
    (values, labels), again = passes
    assert torch.equal(values, again[0])
    assert torch.bincount(labels).tolist() == [3] * 10
    same = (values == images.pixels[labels].float() / 255).flatten(1).all(1)
    assert torch.bincount(labels[same], minlength=10).tolist() == [1] * 10


def test_no_distortion_leaves_images_as_they_are():
    images = torch.rand(3, 2, 6, 6)
    torch.testing.assert_close(distorted(images, STILL, torch.Generator().manual_seed(0)), images)


def test_a_quarter_turn_is_that_of_pytorch(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(shape))  # every draw at its upper end
    images = torch.arange(2 * 36.0).view(2, 1, 6, 6)
    turned = distorted(images, Distortion(turn=90), torch.Generator())
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)), atol=1e-3, rtol=0)


def test_a_shift_moves_by_its_share_and_repeats_the_edge(monkeypatch):
    images = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(shape))
    moved = distorted(images, Distortion(shift=1 / 6), torch.Generator())
    torch.testing.assert_close(moved, F.pad(images, (0, 1, 0, 1), mode="replicate")[:, :, 1:, 1:], atol=1e-5, rtol=0)


def test_light_scales_contrast_and_mean(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(shape))
    images = torch.linspace(0, 0.5, 2 * 3 * 36).view(2, 3, 6, 6)
    lit = distorted(images, Distortion(light=0.2), torch.Generator())
    torch.testing.assert_close(lit, images * 1.2)


@needs_data
def test_gtsrb_validation_shares_no_track_with_training():
    splits, raw = image_data.gtsrb(), dict(np.load(find_data("gtsrb_subset.npz")))
    tracks = {}
    for image, label, track in zip(raw["x_train"], raw["y_train"].tolist(), raw["track"].tolist(), strict=True):
        tracks.setdefault(image.tobytes(), set()).add((label, track))

    def of(split):
        rows = split.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        return set().union(*(tracks[image.tobytes()] for image in rows))

    assert not of(splits.train) & of(splits.validation)
    assert splits.train.rows + splits.validation.rows == len(raw["y_train"])
    assert set(splits.train.labels.tolist()) == set(range(43))
    assert len(set(splits.validation.labels.tolist())) >= 30


@needs_data
def test_mnist_splits_are_parts_of_the_training_file():
    splits, raw = image_data.mnist(), np.load(find_data("mnist.npz"))
    assert (splits.train.rows, splits.validation.rows, splits.test.rows) == (55_000, 5_000, 10_000)
    found = splits.train.pixels.double().sum() + splits.validation.pixels.double().sum()
    assert float(found) == float(raw["x_train"].sum(dtype=np.int64))
    assert np.array_equal(splits.test.pixels[:, 0].numpy(), raw["x_test"])


@pytest.fixture
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path))


RECIPE = Recipe(epochs=30, rate=0.01, decay=0.0, batch=8)


def small_lenet():
    return LeNet300100(pixels=36, hidden=(16,), classes=4)


@pytest.mark.usefixtures("_cache", "one_thread")
def test_a_base_is_trained_once_and_learns():
    pixels = torch.rand(64, 1, 6, 6, generator=torch.Generator().manual_seed(0)).mul(255).to(torch.uint8)
    images = Images(pixels, pixels.float().view(64, 4, 9).mean(2).argmax(1))

    def fit(model, recipe):
        fit_images(model, images, recipe)

    model, seconds = trained_once(small_lenet, fit, RECIPE, "small")
    again, kept = trained_once(small_lenet, lambda *_: pytest.fail("trained again"), RECIPE, "small")
    inputs, labels = next(iter(images))
    assert (model(**inputs).argmax(1) == labels).float().mean() > 0.9
    assert seconds == kept > 0
    prints = [fingerprint({name: v.numpy() for name, v in one.state_dict().items()}) for one in (model, again)]
    assert prints[0] == prints[1]


def test_a_loss_that_is_no_number_stops_with_what_to_lower():
    model = LeNet300100(pixels=36, hidden=(16,), classes=16)
    torch.nn.init.constant_(model.layers[0].weight, torch.inf)
    with pytest.raises(FlyweightError, match="training loss is nan; lower the recipe's rate"):
        fit_images(model, some_images(rows=16), RECIPE)


@pytest.mark.parametrize("name", ["lenet-300-100", "traffic-signs", "pneumonia"])
def test_a_missing_file_says_which_and_where(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWEIGHT_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"\.npz is not in the folder FLYWEIGHT_DATA, .*put it there"):
        ZOO[name]()


def test_another_file_of_that_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWEIGHT_DATA", str(tmp_path))
    np.savez(tmp_path / "mnist.npz", x_train=np.zeros(1))
    with pytest.raises(InputError, match=r"lacks the arrays y_train, x_test, y_test; it holds x_train"):
        image_data.mnist()
    (tmp_path / "mnist.npz").write_text("no archive")
    with pytest.raises(InputError, match=r"mnist.npz cannot be read as NumPy arrays"):
        image_data.mnist()


@needs_data
def test_xrays_have_one_output_with_the_probability_of_two(monkeypatch):
    """Trained for no epoch: what is trained is measured in benchmarks/dense_models.py."""
    torch.manual_seed(0)
    net = image_classifiers.XRAYS.make().eval()
    monkeypatch.setattr(image_classifiers, "trained_classifier", lambda *_, **__: (copy.deepcopy(net), 0.0))
    task = ZOO["pneumonia"]()
    inputs, _, _ = next(task.batches("test"))
    few = {"image": inputs["image"][:8]}
    expected = torch.softmax(net(**few), 1)[:, 1]
    torch.testing.assert_close(torch.sigmoid(task.model(**few)).squeeze(1), expected)
    assert (task.spec.name, task.output) == ("auc", "logit")


@needs_data
def test_signs_are_judged_by_accuracy_and_trained_on_distorted_copies(monkeypatch):
    net = image_classifiers.SIGNS.make().eval()
    monkeypatch.setattr(image_classifiers, "trained_classifier", lambda *_, **__: (net, 0.0))
    task = ZOO["traffic-signs"]()
    assert (task.spec.name, task.output) == ("accuracy", "columns")
    assert task.train.copies == image_classifiers.COPIES
    assert task.validation.copies == task.test.copies == 1
