"""The dense benchmarks' data and training: splits that share nothing, distortions that do what they say."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flyweight.errors import FlyweightError, InputError
from flyweight.zoo.cache import fingerprint
from flyweight.zoo.lenet import LeNet300100
from flyweight.zoo.sasrec import SASRec

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import dense_data as data
import dense_training as training

FOLDER = Path(__file__).resolve().parents[1] / "../shared/data"
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason="the benchmark data are not at ../shared/data")
STILL = data.Distortion()


def some_images(rows=10, size=4, **settings):
    """Images of which each pixel tells its image and place, labelled by number."""
    pixels = torch.arange(rows * 36, dtype=torch.int64).remainder(256).to(torch.uint8).view(rows, 1, 6, 6)
    return data.Images(pixels, torch.arange(rows), size=size, **settings)


def test_missing_data_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWEIGHT_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"mnist.npz is not in .*FLYWEIGHT_DATA.*set FLYWEIGHT_DATA to the folder"):
        data.find_data("mnist.npz")


def test_data_is_found_where_the_variable_says(tmp_path, monkeypatch):
    (tmp_path / "mnist.npz").touch()
    monkeypatch.setenv("FLYWEIGHT_DATA", str(tmp_path))
    assert data.find_data("mnist.npz") == tmp_path / "mnist.npz"


def test_images_come_whole_and_in_order():
    images = some_images()
    batches = list(images)
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert len(images) == 3
    values = torch.cat([inputs["image"] for inputs, _ in batches])
    torch.testing.assert_close(values, images.pixels.float() / 255)


def test_copies_hold_each_image_once_as_it_is_and_come_alike_on_every_pass():
    images = some_images(copies=3, distortion=data.Distortion(light=0.5))
    passes = [[torch.cat(parts) for parts in zip(*((x["image"], y) for x, y in images), strict=True)] for _ in "ab"]
    (values, labels), again = passes
    assert torch.equal(values, again[0])
    assert torch.bincount(labels).tolist() == [3] * 10
    same = (values == images.pixels[labels].float() / 255).flatten(1).all(1)
    assert torch.bincount(labels[same], minlength=10).tolist() == [1] * 10


def test_no_distortion_leaves_images_as_they_are():
    images = torch.rand(3, 2, 6, 6)
    torch.testing.assert_close(data.distorted(images, STILL, torch.Generator().manual_seed(0)), images)


def test_a_quarter_turn_is_that_of_pytorch(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(shape))  # every draw at its upper end
    images = torch.arange(2 * 36.0).view(2, 1, 6, 6)
    turned = data.distorted(images, data.Distortion(turn=90), torch.Generator())
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)), atol=1e-3, rtol=0)


def test_a_shift_moves_by_its_share_and_repeats_the_edge(monkeypatch):
    images = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(shape))
    moved = data.distorted(images, data.Distortion(shift=1 / 6), torch.Generator())
    torch.testing.assert_close(moved, F.pad(images, (0, 1, 0, 1), mode="replicate")[:, :, 1:, 1:], atol=1e-5, rtol=0)


def test_light_scales_contrast_and_mean(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(shape))
    images = torch.linspace(0, 0.5, 2 * 3 * 36).view(2, 3, 6, 6)
    lit = data.distorted(images, data.Distortion(light=0.2), torch.Generator())
    torch.testing.assert_close(lit, images * 1.2)


@needs_data
def test_gtsrb_validation_shares_no_track_with_training():
    splits, raw = data.gtsrb(), dict(np.load(data.find_data("gtsrb_subset.npz")))
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
    splits, raw = data.mnist(), np.load(data.find_data("mnist.npz"))
    assert (splits.train.rows, splits.validation.rows, splits.test.rows) == (55_000, 5_000, 10_000)
    found = splits.train.pixels.double().sum() + splits.validation.pixels.double().sum()
    assert float(found) == float(raw["x_train"].sum(dtype=np.int64))
    assert np.array_equal(splits.test.pixels[:, 0].numpy(), raw["x_test"])


@needs_data
def test_beauty_leaves_the_last_two_items_to_test_and_validation():
    splits = data.beauty()
    lines = [list(map(int, line.split()[1:])) for line in data.find_data("s3rec_beauty.txt").read_text().splitlines()]
    assert splits.test.rows == len(lines) == 22_363
    assert splits.train.rows == sum(len(items) - 3 for items in lines)
    for user in (0, 5, 22_362):
        items, history = lines[user], splits.test.ids[user].tolist()
        assert splits.test.target[user] == items[-1]
        assert [item for item in history if item] == items[:-1][-50:]
        assert history[-1] == items[-2]
    seconds = {(tuple(items[:-2][-50:]), items[-2]) for items in lines}
    validation = zip(splits.validation.ids.tolist(), splits.validation.target.tolist(), strict=True)
    assert {(tuple(item for item in ids if item), target) for ids, target in validation} <= seconds


def test_the_loss_with_every_item_drawn_is_the_softmax_over_all():
    torch.manual_seed(0)
    model = SASRec(items=20, length=6, dim=8).eval()
    torch.nn.init.normal_(model.items.weight)
    ids = training.padded([np.array([3, 1, 4, 9]), np.array([5, 2])])
    recipe = training.Recipe(epochs=1, rate=0.1, decay=0.0, negatives=19)
    found = training._next_item_loss(model, ids, recipe, torch.Generator().manual_seed(0))
    history, target = ids[:, :-1], ids[:, 1:]
    scores = F.linear(model.encode(history), model.items.weight)[history != 0]
    torch.testing.assert_close(found, F.cross_entropy(scores, target[history != 0]))


def test_sequences_are_padded_before():
    assert training.padded([np.array([3, 1]), np.array([5])]).tolist() == [[3, 1], [0, 5]]


@pytest.fixture
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path))


RECIPE = training.Recipe(epochs=30, rate=0.01, decay=0.0, batch=8)


def small_lenet():
    return LeNet300100(pixels=36, hidden=(16,), classes=4)


@pytest.mark.usefixtures("_cache", "one_thread")
def test_a_base_is_trained_once_and_learns():
    pixels = torch.rand(64, 1, 6, 6, generator=torch.Generator().manual_seed(0)).mul(255).to(torch.uint8)
    images = data.Images(pixels, pixels.float().view(64, 4, 9).mean(2).argmax(1))

    def fit(model, recipe):
        training.fit_images(model, images, recipe)

    model, seconds = training.trained(small_lenet, fit, RECIPE, "small")
    again, kept = training.trained(small_lenet, lambda *_: pytest.fail("trained again"), RECIPE, "small")
    inputs, labels = next(iter(images))
    assert (model(**inputs).argmax(1) == labels).float().mean() > 0.9
    assert seconds == kept > 0
    prints = [fingerprint({name: v.numpy() for name, v in one.state_dict().items()}) for one in (model, again)]
    assert prints[0] == prints[1]


@pytest.mark.usefixtures("one_thread")
def test_sasrec_learns_what_follows():
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    ring = [(random.integers(1, 11) + np.arange(6) - 1) % 10 + 1 for _ in range(64)]  # each item, then the next
    model = SASRec(items=11, length=6, dim=16, hidden=16, dropout=0.0).train()
    training.fit_histories(model, ring, training.Recipe(epochs=20, rate=0.01, decay=0.0, batch=16, negatives=5))
    ids = torch.tensor([[0, 0, 0, 0, 4, 5], [0, 0, 0, 8, 9, 10]])
    assert model.eval()(ids).argmax(1).tolist() == [6, 1]


def test_a_loss_that_is_no_number_stops_with_what_to_lower():
    model = LeNet300100(pixels=36, hidden=(16,), classes=16)
    torch.nn.init.constant_(model.layers[0].weight, torch.inf)
    with pytest.raises(FlyweightError, match="training loss is nan; lower the recipe's rate"):
        training.fit_images(model, some_images(rows=16), RECIPE)
