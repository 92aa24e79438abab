"""Lets the tests of this folder make bundles with the small models of `tests/bundle`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bundle"))
