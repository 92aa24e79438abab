"""What the benchmarks of the automatic search count on: draws that are what they claim, a true drop that is true."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import auto_certificates
import auto_prediction
import flyweight as fw
from auto_certificates import LEVELS, Population
from flyweight.quality.auc import auc
from flyweight.tables.allocation import Damage, Menu
from small_tasks import Ranker, splits

SIZES = np.array([1.0, 4.0, 16.0, 64.0])


@pytest.fixture
def population():
    random = np.random.default_rng(0)
    size = random.integers(1, 9, 300)
    targets = (random.random(size.sum()) < 0.4).astype(float)
    before = targets + random.normal(size=size.sum())
    return Population(before, before + random.normal(size=size.sum()), targets, np.concatenate([[0], np.cumsum(size)]))


def test_a_test_set_holds_whole_groups_and_tells_copies_apart(population):
    before, after = population.draw(500, np.random.default_rng(1))
    assert len(np.unique(before.groups)) == 500
    groups = {tuple(part) for part in np.split(population.before, population.start[1:-1])}
    drawn = [tuple(before.outputs[before.groups == number]) for number in range(500)]
    assert set(drawn) <= groups
    assert len(set(drawn)) < 300
    assert np.array_equal(before.targets, after.targets)


def test_the_mean_over_draws_is_the_population(population):
    whole = auc(population.before, population.targets) - auc(population.after, population.targets)
    pairs = [population.draw(300, np.random.default_rng(seed)) for seed in range(300)]
    drops = [auc(b.outputs, b.targets) - auc(a.outputs, a.targets) for b, a in pairs]
    assert np.mean(drops) == pytest.approx(whole, abs=3 * np.std(drops) / 300**0.5)


@pytest.mark.parametrize("share", sorted({level.share for level in LEVELS}))
def test_scores_are_moved_until_the_drop_is_the_one_wanted(population, share):
    task = fw.Task(Ranker(), {name: fw.Field() for name in ("user_id", "item_id", "price")}, **splits())
    wanted = 0.05 * share
    moved = population.moved(auto_certificates.share_for(task, population, wanted))
    assert auc(moved.before, moved.targets) - auc(moved.after, moved.targets) == pytest.approx(wanted, abs=1e-4)
    assert not np.array_equal(moved.after, moved.before)


def test_a_true_drop_that_the_population_lacks_is_refused(population):
    task = fw.Task(Ranker(), {name: fw.Field() for name in ("user_id", "item_id", "price")}, **splits())
    with pytest.raises(ValueError, match=r"not over 0\.4; take a larger ratio"):
        auto_certificates.share_for(task, population, 0.4)


def menu(items=12):
    return Menu(np.arange(0, 4 * items + 1, 4), np.tile(SIZES, items))


@pytest.mark.parametrize("wanted", [60.0, 150.0, 400.0])
def test_a_drawn_choice_has_the_size_wanted(wanted):
    random = np.random.default_rng(0)
    choices = [auto_prediction.draw_choice(menu(), wanted, random) for _ in range(20)]
    assert all(abs(menu().size(choice) - wanted) <= 0.03 * wanted for choice in choices)
    assert len({tuple(choice) for choice in choices}) > 10


def test_a_choice_near_a_plan_moves_some_bands_by_one_coding():
    plan, random = np.full(12, 2), np.random.default_rng(0)
    for _ in range(20):
        choice = auto_prediction.draw_near(menu(), plan, random)
        assert set(np.abs(choice - plan)) == {0, 1}
        assert abs(menu().size(choice) - menu().size(plan)) <= 0.03 * menu().size(plan)


def test_rank_correlation_is_that_of_scipy():
    random = np.random.default_rng(0)
    one, other = random.integers(0, 9, 40).astype(float), random.normal(size=40)
    assert auto_prediction.spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert np.isnan(auto_prediction.spearman(np.zeros(3), np.arange(3.0)))
    found = auto_prediction.correlation(other, other + 0.1 * random.normal(size=40))
    assert found["low"] < found["value"] < found["high"] <= 1


def test_the_sum_of_single_damages_leaves_out_what_codings_do_together():
    form = Damage(np.array([1.0, 2.0]), np.array([[4.0, 9.0], [9.0, 6.0]]))
    single = auto_prediction.alone(form)
    assert single.tolist() == [3.0, 5.0]
    assert form.of(np.array([0, 1])) == single.sum() + 9.0


def test_a_bolder_prediction_leaves_the_product_as_it_was(monkeypatch):
    seen = []
    monkeypatch.setattr(auto_prediction, "expand", lambda *_: seen.append(auto_prediction.damage.NOISE) or ((None,),))
    bench = type("Bench", (), {"fit": lambda *_: None, "before": type("S", (), {"outputs": None}), "tables": ()})()
    bench.items, bench.task = (), type("T", (), {"model": nn.Identity()})
    before = auto_prediction.damage.NOISE
    auto_prediction.bolder_prediction(auto_prediction.Setting(bench, None, None))
    assert seen == [0.0]
    assert before == auto_prediction.damage.NOISE
