"""Thinner layers and fewer bits: what pruning, quantisation and distillation give, beside controls and peers.

python benchmarks/dense.py --case gtsrb --seeds 0 1 2     # writes results/dense_gtsrb.json and the table in docs/dense.md
python benchmarks/dense.py                                # every case: hours on 2 cores; goes on where it stopped
"""

import argparse
from collections.abc import Callable

import dense_dcnv2
import dense_gtsrb
import dense_pneumonia
import dense_sasrec
import dense_stacked
import dense_tables

CASES: dict[str, Callable[[list[int]], None]] = {
    "dcnv2": dense_dcnv2.run,
    "gtsrb": dense_gtsrb.run,
    "pneumonia": dense_pneumonia.run,
    "sasrec": dense_sasrec.run,
    "stacked": dense_stacked.run,
}


def main() -> None:
    """Run the cases asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    wanted = parser.parse_args()
    for name in wanted.case:
        CASES[name](wanted.seeds)
        dense_tables.main()


if __name__ == "__main__":
    main()
