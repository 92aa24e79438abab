"""The README's table: the default task compressed under a drop of 0.001, read off the bundle.

python benchmarks/demo.py          # runs `flyweight demo` (a few minutes the first time), writes JSON and README.md
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from flyweight.bundle.inspect import inspect
from flyweight.report.words import bytes_in_words, milliseconds_in_words, ratio_in_words
from page_section import put

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "demo.json"
README = HERE.parent / "README.md"


def rows(facts: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the table's rows: what, before, after, change."""
    before, after = facts["before"], facts["after"]
    drop, logloss = facts["drop"], facts["guards"]["logloss"]["drop"]
    slow, fast = facts["latency_ms"]["before"]["p50"], facts["latency_ms"]["after"]["p50"]

    def paired(one: dict[str, Any]) -> str:
        return f"drop {one['value']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"

    def size(key: str) -> tuple[str, str, str]:
        smaller = f"{ratio_in_words(before[key] / after[key])} smaller"
        return bytes_in_words(before[key]), bytes_in_words(after[key]), smaller

    times = milliseconds_in_words(slow), milliseconds_in_words(fast), ratio_in_words(slow / fast)
    quality = [f"{part['quality']['value']:.4f}" for part in (before, after)]
    guards = [f"{part['guards']['logloss']['value']:.4f}" for part in (before, after)]
    return [
        ("embedding tables", *size("table_bytes")),
        ("model on disk", *size("bytes")),
        (f"test AUC, n = {drop['n']:,}", *quality, paired(drop)),
        ("test logloss", *guards, paired(logloss)),
        ("500 candidates, median, against eager PyTorch", *times),
    ]


def main() -> None:
    """Run the demo and write what its bundle says."""
    subprocess.run([str(Path(sys.executable).parent / "flyweight"), "demo"], cwd=HERE.parent, check=True)
    facts = inspect(HERE.parent / "demo" / "ranker.fly")
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    lines = ["| | before | after | |", "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows(facts))]
    put(README, "demo", "\n".join(lines))


if __name__ == "__main__":
    main()
