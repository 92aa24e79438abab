"""Resident memory of a fresh process."""

import sys

import pytest

from flyweight.cost.resident import measure_resident
from flyweight.errors import EngineError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")


def test_growth_is_what_was_loaded_and_run() -> None:
    found = measure_resident("print('noise'); loaded = b'x' * 40_000_000", "more = loaded + b'y' * 20_000_000")
    assert 39e6 < found.loaded - found.before < 50e6
    assert 59e6 < found.ran - found.loaded < 70e6
    assert found.peak >= found.ran
    assert found.growth == found.ran - found.before


def test_module_and_function_can_be_named() -> None:
    found = measure_resident("collections:OrderedDict", "copy:copy", setup="import copy")
    assert found.loaded - found.before < 5e6


def test_failing_code_is_told_by_its_last_line() -> None:
    with pytest.raises(EngineError, match="The memory probe failed: ZeroDivisionError: division by zero"):
        measure_resident("1 / 0")


def test_endless_code_is_stopped() -> None:
    with pytest.raises(EngineError, match="ran longer than 1 s"):
        measure_resident("import time; time.sleep(60)", seconds=1.0)
