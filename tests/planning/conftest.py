"""These tests run on one thread, and time both models for a moment only."""

from collections.abc import Iterator

import pytest

from flyweight.planning import clock


@pytest.fixture(autouse=True, scope="module")
def _quick(one_thread: None) -> Iterator[None]:
    """Shorten the timing, which takes eight seconds else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "SECONDS", 0.2)
        yield
