"""Training: deterministic, kept, guarded."""

from dataclasses import replace

import pytest
import torch

from flyweight.errors import FlyweightError
from flyweight.zoo.batches import Batches
from flyweight.zoo.cache import fingerprint
from flyweight.zoo.models.dcnv2 import DCNv2
from flyweight.zoo.training import Training, train, trained

SETTINGS = Training(batch_rows=64, table_rate=0.05, dense_rate=0.01)


@pytest.fixture
def data():
    """Rows whose label is the parity of the item: only the item's table can know it."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 20, (2000, 2), generator=generator, dtype=torch.int32)
    return Batches({"user": 1, "item": 1}, ids, ids[:, 1] % 2, {})


def make():
    return DCNv2({"user": 20, "item": 20}, dim=4, hidden=(8,))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path))
    return tmp_path


def weights(model):
    return fingerprint({name: value.numpy() for name, value in model.state_dict().items()})


def test_training_learns_the_rule(data):
    model = trained(make, data, SETTINGS, "parity")
    inputs, target = next(iter(data.of_size(2000)))
    assert torch.equal(model(**inputs) > 0, target > 0)


def test_training_twice_gives_the_same_bytes(data):
    first, second = (trained(make, data, SETTINGS, key) for key in ("one", "two"))
    assert weights(first) == weights(second)


def test_training_leaves_the_global_seed_alone(data):
    before = torch.get_rng_state()
    trained(make, data, SETTINGS, "parity")
    assert torch.equal(before, torch.get_rng_state())


def test_kept_weights_are_read_and_not_trained_again(data, monkeypatch):
    first = trained(make, data, SETTINGS, "parity")
    monkeypatch.setattr("flyweight.zoo.training.train", lambda *_: pytest.fail("trained again"))
    assert weights(trained(make, data, SETTINGS, "parity")) == weights(first)


@pytest.mark.parametrize(
    ("settings", "key", "build"),
    [
        (replace(SETTINGS, table_rate=0.04), "parity", make),
        (SETTINGS, "other data", make),
        (SETTINGS, "parity", lambda: DCNv2({"user": 20, "item": 20}, dim=4, hidden=(8,), init_std=0.1)),
    ],
    ids=["settings", "data", "start"],
)
def test_other_settings_data_or_start_train_anew(data, cache, settings, key, build):
    trained(make, data, SETTINGS, "parity")
    trained(build, data, settings, key)
    assert len(list(cache.iterdir())) == 2


def test_damaged_weights_are_trained_again(data, cache):
    first = weights(trained(make, data, SETTINGS, "parity"))
    (file,) = cache.glob("*/tables.item.weight.npy")
    file.write_bytes(file.read_bytes()[:-8])
    assert weights(trained(make, data, SETTINGS, "parity")) == first


def test_a_loss_that_is_no_number_stops_with_what_to_lower(data):
    model = make()
    with torch.no_grad():
        model.head.weight.fill_(float("inf"))
    with pytest.raises(FlyweightError, match=r"loss is nan after 1 of 32 training steps; lower table_rate=0\.05"):
        train(model, data, SETTINGS)


def test_an_interrupt_keeps_no_weights(data, cache):
    def stop(_label, _done, _total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(make, data, SETTINGS, "parity", stop)
    assert list(cache.iterdir()) == []


def test_progress_ends_at_the_total(data):
    seen = []
    train(make(), data, SETTINGS, lambda *state: seen.append(state))
    assert seen == [("Training", 20, 32), ("Training", 32, 32)]
