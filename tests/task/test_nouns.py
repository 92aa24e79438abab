"""Output kinds, the table of metrics, fields, estimates, losses."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.task.loss import default_loss
from flyweight.task.metric import METRICS, find_metric
from flyweight.task.progress import shown_on, stage
from small_tasks import FIELDS, Ranker, batches, seeded, world


class Shaped(Ranker):
    """The ranker's logits, put in another shape or scale."""

    def __init__(self, give: Any) -> None:
        super().__init__()
        self.give = give

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.give(super().forward(**inputs))


def found(give: Any, target: Any = lambda y: y, **settings: Any) -> str | None:
    columns, clicked = world(300, 1)
    data = batches(columns, target(clicked), size=100)
    model = seeded(Shaped, give)
    return fw.Task(model=model, inputs=FIELDS, train=data, validation=data, test=data, **settings).output


def three(x: Tensor) -> Tensor:
    return torch.stack([x, -x, 0 * x], 1)


@pytest.mark.parametrize(
    ("give", "target", "settings", "output"),
    [
        (lambda x: x, lambda y: y, {}, "logit"),
        (lambda x: x[:, None], lambda y: y[:, None], {}, "logit"),
        (torch.sigmoid, lambda y: y, {}, "probability"),
        (torch.sigmoid, lambda y: y, {"output": "logit"}, "logit"),
        (three, lambda y: y.long(), {"metric": "accuracy"}, "columns"),
        (three, lambda y: y.long(), {"metric": "recall@2"}, "columns"),
        (lambda x: x, lambda y: y + 0.5, {"metric": "rmse"}, "value"),
        (three, lambda y: three(y), {"metric": "rmse"}, "value"),
        (lambda x: x, lambda y: y + 0.5, {"metric": lambda o, t: 0.0}, "value"),
        (three, lambda y: y, {"metric": lambda o, t: 0.0}, "columns"),
        (three, lambda y: three(y), {"metric": lambda o, t: 0.0}, "value"),
        (lambda x: x, lambda y: y, {"metric": lambda o, t: 0.0}, "logit"),
        (lambda x: x, lambda y: y, {"metric": lambda o, t: 0.0, "loss": nn.MSELoss()}, "value"),
    ],
)
def test_kind_of_output_is_found(give: Any, target: Any, settings: Any, output: str) -> None:
    assert found(give, target, **settings) == output


def test_logits_that_begin_inside_0_to_1_are_still_logits() -> None:
    """The first batches look like probabilities; a later one does not."""

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * x

    x = torch.cat([torch.linspace(0.1, 0.9, 40), torch.tensor([-3.0, 4.0])])
    data = batches({"x": x}, (torch.arange(42) % 2).float(), size=10)
    task = fw.Task(model=Late(), inputs={"x": fw.Field()}, train=data, validation=data, test=data)
    assert task.output == "logit"


def test_probabilities_of_logits_are_sigmoids() -> None:
    data = batches(*world(100, 1))
    task = fw.Task(model=seeded(Ranker), inputs=FIELDS, train=data, validation=data, test=data)
    assert task.probabilities(np.array([0.0, 1000.0, -1000.0])).tolist() == pytest.approx([0.5, 1.0, 0.0])
    assert task.judged(find_metric("auc"), np.array([3.0])).tolist() == [3.0]
    assert task.judged(find_metric("logloss"), np.array([0.0])).tolist() == [0.5]


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_found_by_name(name: str) -> None:
    asked = name + "7" if name.endswith("@") else name
    metric = find_metric(asked)
    assert metric.name == asked
    assert metric.at == (7 if name.endswith("@") else None)
    assert metric.larger_is_better == (name not in ("logloss", "rmse"))
    assert find_metric(metric) is metric


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("aucc", "Did you mean 'auc'"),
        ("ndgc@10", "Did you mean 'ndcg'"),
        ("recall@", "needs a cut-off after @"),
        ("ndcg@0", "positive whole number"),
        ("ndcg@1.5", "positive whole number"),
        (fw.Metric("mine"), "give function="),
        (None, "must be a name"),
    ],
)
def test_unknown_metric_is_an_error(metric: Any, words: str) -> None:
    with pytest.raises(fw.InputError, match=words):
        find_metric(metric)


def test_callable_is_a_metric_where_larger_is_better() -> None:
    def spread(outputs: Any, targets: Any) -> float:
        return 0.0

    assert find_metric(spread) == fw.Metric("spread", function=spread)


@pytest.mark.parametrize("rows", [0, -3, 2.0, "9", True])
def test_field_rows_that_are_no_vocabulary_are_refused(rows: Any) -> None:
    with pytest.raises(fw.InputError, match="positive whole number"):
        fw.Field(rows=rows)


def test_field_role_is_one_of_three() -> None:
    with pytest.raises(fw.InputError, match=r'.user. is unknown.*"request", "candidate", "sample"'):
        fw.Field(role="user")  # type: ignore[arg-type]
    assert fw.Field().role == "sample"
    assert not fw.Field().is_id
    assert fw.Field(rows=1).is_id


def test_estimate_prints_value_interval_confidence_and_n() -> None:
    assert str(fw.Estimate(-0.0002, -0.0005, 0.0001, n=78_053)) == "-0.0002 [-0.0005, +0.0001], 95%, n=78,053"
    grouped = fw.Estimate(0.5, 0.4, 0.6, n=2_000, confidence=0.9, groups=1_234)
    assert str(grouped) == "+0.5000 [+0.4000, +0.6000], 90%, n=2,000 in 1,234 groups"


@pytest.mark.parametrize(
    ("metric", "output", "value", "target", "expected"),
    [
        ("auc", "logit", 0.0, 1.0, np.log(2)),
        ("auc", "probability", 0.25, 1.0, np.log(4)),
        ("rmse", "value", 3.0, 1.0, 4.0),
    ],
)
def test_default_loss_follows_metric_and_output(
    metric: str, output: str, value: float, target: float, expected: float
) -> None:
    loss = default_loss(find_metric(metric), output)
    assert loss(torch.tensor([value]), torch.tensor([target])).tolist() == pytest.approx([expected])


def test_default_loss_of_columns_is_softmax_cross_entropy() -> None:
    loss = default_loss(find_metric("accuracy"), "columns")
    assert loss(torch.zeros(2, 5), torch.tensor([1, 4])).tolist() == pytest.approx([np.log(5)] * 2)


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def begin(self, words: str, total: int | None, seconds: float | None) -> None:
        self.seen.append(("begin", words, total))

    def advance(self, units: int) -> None:
        self.seen.append(("advance", units))

    def end(self) -> None:
        self.seen.append(("end",))


def work_and_fail(display: Recorder) -> None:
    with shown_on(display), stage("outer", 2) as work:
        with stage("inner", 5) as inner:
            inner.advance()
        work.advance(2)
        raise ValueError("no")


def test_inner_stages_are_silent_and_outer_ones_end_on_errors() -> None:
    display = Recorder()
    with pytest.raises(ValueError, match="no"):
        work_and_fail(display)
    assert display.seen == [("begin", "outer", 2), ("advance", 2), ("end",)]
    with stage("unseen") as work:
        work.advance()
    assert len(display.seen) == 3
