"""The small bundles of tests/bundle serve these tests too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "bundle"))
