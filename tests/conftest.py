"""Fixtures that tests of several areas share."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# How long an example takes says nothing where others run on the same cores.
settings.register_profile("flyweight", deadline=None)
settings.load_profile("flyweight")

# Ray's clusters of the tests ask for no token, and leave none in the user's home.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Run PyTorch on one thread: small models lose more by waiting for each other than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
