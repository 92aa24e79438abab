"""Most searches here are of one small ranker."""

import pytest

import flyweight as fw
from small_tasks import Ranker, seeded, trained_task


@pytest.fixture(scope="session")
def ranker() -> fw.Task:
    return trained_task(seeded(Ranker), name="small ranker")
