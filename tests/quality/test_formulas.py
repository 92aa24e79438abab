"""Each formula against an independent tool, by its ties, and by what must not change it."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from flyweight.quality.auc import auc, gauc
from flyweight.quality.calibration_error import CALIBRATION_ERROR, calibration_error
from flyweight.quality.classification import accuracy, f1, precision, recall
from flyweight.quality.formulas import FORMULAS, find_formula
from flyweight.quality.logloss import logloss
from flyweight.quality.measure import measure
from flyweight.quality.places import find_places, mid_ranks, same_order
from flyweight.quality.ranking import hit_rate, ndcg, recall_at
from flyweight.quality.rmse import rmse
from flyweight.task.metric import METRICS, Metric, find_metric

#: Any metric by a full name, for tests that run over all of them.
NAMES = [name + "1" if name.endswith("@") else name for name in METRICS]
FLAT = [name for name in NAMES if name != "rmse"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def draw(rng: np.random.Generator, rows: int = 300, groups: int = 20, levels: int = 12) -> tuple[np.ndarray, ...]:
    """Probabilities with many ties, 0/1 targets, groups."""
    targets = rng.integers(0, 2, rows)
    scores = np.clip(np.round((rng.random(rows) + 0.4 * targets) * levels) / levels / 1.4, 0, 1)
    return scores, targets, rng.integers(0, groups, rows)


def test_formulas_and_specifications_have_the_same_names() -> None:
    assert FORMULAS.keys() == METRICS.keys()


def test_auc_equals_sklearn_with_ties(rng: np.random.Generator) -> None:
    scores, targets, _ = draw(rng)
    assert auc(scores, targets) == pytest.approx(sk.roc_auc_score(targets, scores), abs=1e-12)


def test_auc_of_equal_scores_is_a_half() -> None:
    assert auc([0.3] * 5, [0, 1, 0, 1, 1]) == 0.5


def test_gauc_is_the_row_weighted_mean_over_groups_with_both_classes(rng: np.random.Generator) -> None:
    scores, targets, groups = draw(rng, rows=120, groups=40)
    kept = [rows for g in np.unique(groups) if 0 < targets[rows := groups == g].mean() < 1]
    assert len(kept) < len(np.unique(groups))
    expected = sum(rows.sum() * sk.roc_auc_score(targets[rows], scores[rows]) for rows in kept)
    assert gauc(scores, targets, groups) == pytest.approx(expected / sum(rows.sum() for rows in kept), abs=1e-12)


def test_logloss_equals_sklearn_with_certain_mistakes(rng: np.random.Generator) -> None:
    scores, targets, _ = draw(rng)
    scores[:2], targets[:2] = [0.0, 1.0], [1, 0]
    assert logloss(scores, targets) == pytest.approx(sk.log_loss(targets, scores), rel=1e-12)


def test_rmse_equals_sklearn(rng: np.random.Generator) -> None:
    predictions, targets = rng.normal(size=(2, 50))
    assert rmse(predictions, targets) == pytest.approx(sk.root_mean_squared_error(targets, predictions), rel=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(precision, sk.precision_score), (recall, sk.recall_score), (f1, sk.f1_score)],
    ids=["precision", "recall", "f1"],
)
def test_counts_equal_sklearn_binary_and_macro(ours, theirs, rng: np.random.Generator) -> None:
    scores, targets, _ = draw(rng)
    assert ours(scores, targets) == pytest.approx(theirs(targets, scores > 0.5), rel=1e-12)
    columns = rng.normal(size=(60, 9))
    labels = rng.integers(0, 5, 60)  # classes 5 to 8 are only ever predicted
    columns[:, 8] = -9.0  # and class 8 is neither there nor predicted
    expected = theirs(labels, columns.argmax(1), average="macro", zero_division=0)
    assert ours(columns, labels) == pytest.approx(expected, rel=1e-12)


def test_accuracy_equals_sklearn(rng: np.random.Generator) -> None:
    scores, targets, _ = draw(rng)
    assert accuracy(scores, targets) == pytest.approx(sk.accuracy_score(targets, scores > 0.5), rel=1e-12)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_ndcg_equals_sklearn_with_ties_in_both_forms(k: int, rng: np.random.Generator) -> None:
    scores = rng.integers(0, 5, (30, 12)).astype(float)
    index = rng.integers(0, 12, 30)
    one_hot = np.eye(12)[index]
    expected = sk.ndcg_score(one_hot, scores, k=k)
    assert ndcg(scores, index, k=k) == pytest.approx(expected, rel=1e-12)
    flat = ndcg(scores.ravel(), one_hot.ravel(), np.repeat(np.arange(30), 12), k=k)
    assert flat == pytest.approx(expected, rel=1e-12)


def test_ndcg_of_several_positives_equals_sklearn(rng: np.random.Generator) -> None:
    scores, targets = rng.integers(0, 4, (25, 9)).astype(float), rng.integers(0, 2, (25, 9))
    targets[:, 0] = 1
    flat = ndcg(scores.ravel(), targets.ravel(), np.repeat(np.arange(25), 9), k=4)
    assert flat == pytest.approx(sk.ndcg_score(targets, scores, k=4), rel=1e-12)


def test_ranking_is_the_mean_over_every_order_of_ties() -> None:
    scores, targets = np.array([2.0, 1.0, 1.0, 1.0, 0.0]), np.array([0, 1, 1, 0, 1])
    hits, found = [], []
    for order in permutations(range(5)):
        if all(scores[a] >= scores[b] for a, b in pairwise(order)):
            top = targets[list(order[:2])]
            hits.append(top.any())
            found.append(top.sum() / 3)
    zeros = np.zeros(5, dtype=int)
    assert hit_rate(scores, targets, zeros, k=2) == pytest.approx(np.mean(hits))
    assert recall_at(scores, targets, zeros, k=2) == pytest.approx(np.mean(found))


def test_constant_scores_get_what_chance_gives() -> None:
    scores, index = np.zeros((4, 50)), np.array([0, 3, 10, 49])
    assert hit_rate(scores, index, k=5) == pytest.approx(5 / 50)
    assert recall_at(scores, index, k=5) == pytest.approx(5 / 50)
    best_gain = (1 / np.log2(np.arange(5) + 2)).sum()
    assert ndcg(scores, index, k=5) == pytest.approx(best_gain / 50)


def test_groups_without_a_positive_are_left_out() -> None:
    assert hit_rate([0.9, 0.1, 0.5, 0.6], [1, 0, 0, 0], [1, 1, 2, 2], k=1) == 1.0


def test_masked_items_never_found_when_others_remain() -> None:
    assert hit_rate([[0.2, -np.inf, 0.1], [0.3, -np.inf, 0.5]], [0, 1], k=1) == 0.5


def test_calibration_error_of_one_bin_each_is_the_mean_gap() -> None:
    probabilities = np.repeat(np.arange(20) / 20, 10)
    assert calibration_error(probabilities, np.zeros(200)) == pytest.approx(probabilities.mean())


def test_calibration_error_falls_to_its_noise_when_calibrated(rng: np.random.Generator) -> None:
    probabilities = rng.random(200_000)
    targets = rng.random(200_000) < probabilities
    noise = np.sqrt(2 / np.pi * (probabilities * (1 - probabilities)).mean() / 10_000)
    assert calibration_error(probabilities, targets) < 2 * noise
    assert measure(CALIBRATION_ERROR, probabilities / 2, targets) == pytest.approx(0.25, abs=0.01)


def test_places_count_within_groups() -> None:
    below, tied = find_places(np.array([1.0, 2.0, 2.0, 5.0, 2.0]), np.array([0, 0, 0, 1, 1]))
    assert below.tolist() == [0, 1, 1, 1, 0]
    assert tied.tolist() == [1, 2, 2, 1, 1]


@given(arrays(float, st.integers(1, 40), elements=st.integers(-4, 4).map(float)))
def test_mid_ranks_equal_scipy(scores: np.ndarray) -> None:
    from scipy.stats import rankdata

    assert np.array_equal(mid_ranks(scores), rankdata(scores))


def test_same_order_sees_broken_ties_and_swaps() -> None:
    scores = np.array([0.1, 0.4, 0.4, 0.9])
    assert same_order(scores, np.exp(3 * scores) - 7)
    assert not same_order(scores, np.array([0.1, 0.4, 0.5, 0.9]))
    assert not same_order(scores, np.array([0.4, 0.1, 0.1, 0.9]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(NAMES))
def test_every_metric_ignores_the_order_of_rows(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    scores, targets, groups = draw(rng, rows=60, groups=8)
    order = rng.permutation(60)
    metric = find_metric(name)
    shuffled = measure(metric, scores[order], targets[order], groups[order])
    assert shuffled == pytest.approx(measure(metric, scores, targets, groups), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([name for name in NAMES if find_formula(find_metric(name)).by_order]))
def test_metrics_of_order_ignore_a_rising_transform(seed: int, name: str) -> None:
    scores, targets, groups = draw(np.random.default_rng(seed), rows=60, groups=8)
    metric = find_metric(name)
    assert measure(metric, 5 * scores**3 - 2, targets, groups) == measure(metric, scores, targets, groups)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_is_best_for_the_truth(name: str, rng: np.random.Generator) -> None:
    scores, targets, groups = draw(rng)
    metric = find_metric(name)
    chance = rng.permutation(scores)
    best, seen = (measure(metric, s, targets, groups) for s in (targets.astype(float), chance))
    assert best > seen if metric.larger_is_better else best < seen


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_refuses_nan(name: str, rng: np.random.Generator) -> None:
    scores, targets, groups = draw(rng)
    scores[4] = np.nan
    with pytest.raises(ValueError, match=r"1 of 300 scores are NaN"):
        measure(find_metric(name), scores, targets, groups)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_refuses_no_rows_and_other_lengths(name: str) -> None:
    with pytest.raises(ValueError, match="needs at least one row; seen 0 scores and 0 targets"):
        measure(find_metric(name), np.empty(0), np.empty(0), np.empty(0, dtype=int))
    with pytest.raises(ValueError, match="needs one row of scores a target; seen 3 rows and 2 targets"):
        measure(find_metric(name), np.ones(3), np.ones(2), np.zeros(2, dtype=int))


@pytest.mark.parametrize("name", FLAT)
def test_every_binary_metric_refuses_other_targets(name: str) -> None:
    with pytest.raises(ValueError, match=r"needs 0/1 targets; 1 of 3 are not, the first is 2"):
        measure(find_metric(name), np.full(3, 0.5), np.array([0, 1, 2]), np.zeros(3, dtype=int))


@pytest.mark.parametrize("name", ["logloss", "accuracy", "precision", "recall", "f1"])
def test_metrics_of_probabilities_refuse_logits(name: str) -> None:
    with pytest.raises(ValueError, match=r"needs probabilities in \[0, 1\]; seen -2 to 3. Put logits through"):
        measure(find_metric(name), np.array([-2.0, 3.0]), np.array([0, 1]))


@pytest.mark.parametrize(
    ("name", "targets", "words"),
    [
        ("auc", [1, 1], "auc needs both classes; all 2 targets are 1"),
        ("gauc", [1, 0], "gauc needs a group with both classes; none of the 2 groups has them"),
        ("ndcg@2", [0, 0], "ndcg@2 needs a positive target; all 2 are 0"),
        ("recall", [0, 0], "recall needs a positive target; all 2 targets are 0"),
    ],
)
def test_targets_that_leave_a_metric_undefined_are_refused(name: str, targets: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        measure(find_metric(name), [0.2, 0.6], targets, [0, 1])


@pytest.mark.parametrize("name", ["gauc", "recall@2", "hit_rate@2", "ndcg@2"])
def test_missing_groups_are_asked_for(name: str) -> None:
    with pytest.raises(ValueError, match=r"needs groups: the id that tells requests"):
        measure(find_metric(name), [0.2, 0.6], [0, 1])


def test_an_index_outside_the_columns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"on 2 columns needs targets .* indices from 0 to 1; seen .* 0 to 2"):
        measure(find_metric("recall@1"), np.eye(2), [0, 2])


def test_a_callable_is_called_and_checked() -> None:
    own = Metric("share", function=lambda outputs, targets: float((outputs > targets).mean()))
    assert measure(own, [1.0, 0.0], [0.5, 0.5]) == 0.5
    broken = Metric("broken", function=lambda outputs, targets: float("nan"))
    with pytest.raises(ValueError, match="'broken' must return one finite number; seen nan"):
        measure(broken, [1.0], [1.0])


def test_a_family_without_a_cut_off_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'ndcg@' needs a cut-off, as in ndcg@20"):
        measure(Metric("ndcg@", kind="ranking"), np.eye(2), [0, 1])
