"""Searches here look at clocks for a moment only."""

from collections.abc import Iterator

import pytest

from flyweight.planning.search import workbench


@pytest.fixture(autouse=True, scope="module")
def _short_looks_at_the_clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workbench, "SECONDS", 0.05)
        patch.setattr(workbench, "PACE_SECONDS", 0.05)
        yield
