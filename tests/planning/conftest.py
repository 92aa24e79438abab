"""These tests run on one thread."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _quiet(one_thread: None) -> None:
    """Take the shared fixture for every module here."""
