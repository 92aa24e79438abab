"""Small bundles, and a service of them in processes of its own, on ports that were free."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "bundle"))
sys.path.insert(0, str(Path(__file__).parent.parent / "shards"))

import tiny_models
from running_service import Service, started

from flyweight.bundle.write import write_bundle


@pytest.fixture(scope="session")
def hoisted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that takes a user once, with its candidates."""
    folder = tmp_path_factory.mktemp("served")
    made = tiny_models.contents(folder / "export", proto=tiny_models.hoisted_ranker())
    return write_bundle(folder / "ranker.fly", made)


@pytest.fixture(scope="session")
def service(hoisted: Path) -> Iterator[Service]:
    """A service of two models in one worker, over HTTP and gRPC."""
    with started(hoisted, f"second={hoisted}", "--grpc-port", "0", "--max-candidates", "1000") as running:
        yield running
