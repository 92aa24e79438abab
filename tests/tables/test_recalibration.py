"""The two numbers against scikit-learn's logistic regression; folded into the model or wrapped around it, the same."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import flyweight as fw
from flyweight.tables.recalibration import Recalibrated, Recalibration, fit, fit_like, fold
from small_tasks import FIELDS, Ranker, batches, seeded, world

Floats = NDArray[np.float64]


def task_of(output: str = "logit", **settings: str) -> fw.Task:
    data = batches(*world(60, 1))
    return fw.Task(
        model=seeded(Ranker), inputs=FIELDS, train=data, validation=data, test=data, output=output, **settings
    )


def drawn(seed: int, scale: float, bias: float, rows: int = 2_000) -> tuple[Floats, Floats]:
    """Logits, and labels drawn from `scale * logit + bias`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=rows) * 2
    return logits, (rng.random(rows) < expit(scale * logits + bias)).astype(float)


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.2, 3.0), (5.0, -2.0), (0.7, -0.3)])
def test_scale_and_bias_are_those_of_logistic_regression(scale: float, bias: float) -> None:
    logits, labels = drawn(7, scale, bias)
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits[:, None], labels)
    ours = fit(task_of(), logits, labels)
    assert ours.scale == pytest.approx(theirs.coef_[0, 0], rel=1e-3)
    assert ours.bias == pytest.approx(theirs.intercept_[0], rel=1e-3, abs=1e-3)


def test_probabilities_are_fitted_on_their_logits() -> None:
    logits, labels = drawn(1, 0.5, 1.0)
    on_logits, on_chances = fit(task_of(), logits, labels), fit(task_of("probability"), expit(logits), labels)
    assert (on_chances.scale, on_chances.bias) == pytest.approx((on_logits.scale, on_logits.bias), rel=1e-5)
    got = on_chances.apply(torch.from_numpy(expit(logits))).numpy()
    np.testing.assert_allclose(logit(got), on_logits.scale * logits + on_logits.bias, atol=1e-4)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.linspace(-2, 2, 100), np.linspace(-2, 2, 100) < 0),  # the wrong way round
        (np.linspace(-2, 2, 100), np.ones(100)),  # one class
        (np.zeros(0), np.zeros(0)),
    ],
)
def test_what_no_positive_scale_fits_is_left_alone(logits: Floats, labels: Floats) -> None:
    assert fit(task_of(), logits, labels.astype(float)).is_identity


def test_numbers_are_not_recalibrated() -> None:
    task = task_of("value", metric="rmse")
    assert fit(task, np.arange(4.0), np.arange(4.0)).is_identity


def test_calibrated_original_gives_calibrated_logits() -> None:
    before, labels = drawn(2, 1.0, 0.0, rows=20_000)
    after = 0.5 * before - 1.0
    found = fit_like(task_of(), before, after, labels)
    own = fit(task_of(), before, labels)
    assert (own.scale, own.bias) == pytest.approx((1.0, 0.0), abs=0.05)
    np.testing.assert_allclose(found.scale * after + found.bias, own.scale * before + own.bias, atol=1e-4)


def test_original_on_a_scale_of_its_own_keeps_it() -> None:
    """A dot product trained for ranking: far from calibrated, and other systems may rely on its size."""
    truth, labels = drawn(3, 1.0, 0.0, rows=20_000)
    before, after = 10 * truth + 3, 7 * truth - 2
    found = fit_like(task_of(), before, after, labels)
    np.testing.assert_allclose(found.scale * after + found.bias, before, rtol=1e-5, atol=1e-4)


class Chance(Ranker):
    def forward(self, **inputs: Tensor) -> Tensor:
        return torch.sigmoid(super().forward(**inputs))


class Column(Ranker):
    def forward(self, **inputs: Tensor) -> Tensor:
        return super().forward(**inputs).unsqueeze(1)


class NoBias(Ranker):
    def __init__(self) -> None:
        super().__init__()
        self.mlp[2] = nn.Linear(16, 1, bias=False)


class Dot(Ranker):
    def forward(self, user_id: Tensor, item_id: Tensor, price: Tensor) -> Tensor:
        return (self.user(user_id) * self.item(item_id)).sum(1)


class Twice(Ranker):
    """The last layer runs twice, so what is folded into it would count twice."""

    def forward(self, user_id: Tensor, item_id: Tensor, price: Tensor) -> Tensor:
        return super().forward(user_id, item_id, price) - 0.5 * super().forward(user_id, item_id, 1 - price)


class Capped(Ranker):
    """Something nonlinear comes after the last layer."""

    def forward(self, **inputs: Tensor) -> Tensor:
        return super().forward(**inputs).clamp(-0.1, 0.1)


class WideAndDeep(Ranker):
    """A linear part is added to the deep one, after it."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(1, 1)

    def forward(self, user_id: Tensor, item_id: Tensor, price: Tensor) -> Tensor:
        return super().forward(user_id, item_id, price) + self.wide(price.unsqueeze(1)).squeeze(1)


@pytest.mark.parametrize(
    ("kind", "probability", "folded"),
    [
        (Ranker, False, True),
        (Chance, True, True),
        (Column, False, True),
        (NoBias, False, True),
        (Dot, False, False),
        (Twice, False, False),
        (Capped, False, False),
        (WideAndDeep, False, False),
    ],
)
def test_folded_model_is_the_wrapped_one(kind: type[Ranker], probability: bool, folded: bool) -> None:
    model = seeded(kind).eval()
    inputs, _ = world(50, 4)
    recalibration = Recalibration(1.7, -0.4, probability)
    wanted = Recalibrated(model, recalibration)(**inputs).detach()
    new, how = fold(model, recalibration, inputs)
    torch.testing.assert_close(new(**inputs).detach(), wanted, rtol=1e-4, atol=1e-5)
    assert how == ("folded into mlp.2" if folded else "a scale and a bias after the model")
    assert isinstance(new, Recalibrated) != folded


def test_nothing_to_do_is_said_so() -> None:
    model = seeded(Ranker)
    assert fold(model, Recalibration(), world(5, 1)[0]) == (model, "not needed")
