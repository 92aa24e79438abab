"""Thinner layers and fewer bits: what pruning, quantisation and distillation give, beside controls and peers.

python benchmarks/dense.py --case gtsrb --seeds 0 1 2     # writes results/dense_gtsrb.json and a table in docs/dense.md
python benchmarks/dense.py                                # every case: hours on 2 cores; goes on where it stopped
"""

import argparse
from importlib import import_module

import dense_tables
from dense_harness import run_case


def main() -> None:
    """Run the cases asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=dense_tables.CASES, default=dense_tables.CASES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--most", type=int, help="the first so many contenders of a case only")
    wanted = parser.parse_args()
    for name in wanted.case:
        run_case(import_module(f"dense_{name}").CASE, wanted.seeds, wanted.most)
        dense_tables.main()


if __name__ == "__main__":
    main()
