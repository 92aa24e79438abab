"""These tests run on one thread, and time both models for a moment only."""

from collections.abc import Iterator

import pytest

from flyweight.planning import clock
from flyweight.planning.search import pace, workbench


@pytest.fixture(autouse=True, scope="module")
def _quick(one_thread: None) -> Iterator[None]:
    """Shorten the timing, which takes eight seconds else, and one and a half for each trial of a search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "SECONDS", 0.2)
        patch.setattr(workbench, "SECONDS", 0.05)
        patch.setattr(pace, "SECONDS", 0.05)
        yield
