"""Searches here look at clocks for a moment only, and most are of one small ranker."""

from collections.abc import Iterator

import pytest

import flyweight as fw
from flyweight.planning.search import workbench
from small_tasks import Ranker, seeded, trained_task


@pytest.fixture(autouse=True, scope="module")
def _short_looks_at_the_clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workbench, "SECONDS", 0.05)
        patch.setattr(workbench, "PACE_SECONDS", 0.05)
        yield


@pytest.fixture(scope="session")
def ranker() -> fw.Task:
    return trained_task(seeded(Ranker), name="small ranker")
