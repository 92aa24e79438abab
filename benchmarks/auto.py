"""A budget in, the best bundle out: the command line run as a user runs it, and what it wrote read back.

python benchmarks/auto.py                               # every case, and the tables in docs/planning.md
python benchmarks/auto.py --case complete-journey-10    # one of them: writes results/auto_complete-journey-10.json
python benchmarks/auto.py --ablation complete-journey-10

Each case is one command; nothing is set by hand but the budget. Numbers are those of the bundle's own manifest: sizes
on disk, latency timed in turns with the original, the certificate on test data. A case's search stays in the cache
folder, so that cases that ask the same with another margin go on from its trials; each is a further look at the test
split, held to a higher confidence.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import auto_tables
from flyweight.cost.hardware import describe_hardware
from flyweight.cost.sizes import bytes_on_disk
from flyweight.zoo.cache import cache_folder

HERE = Path(__file__).parent
RESULTS = auto_tables.RESULTS
Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One question.

    Args:
        task: as the command line names it.
        options: of `flyweight compress`.
        after: the case whose trials it goes on from; "" starts anew.
        goal: what is asked of it, in words.
    """

    task: str
    options: dict[str, str]
    after: str = ""
    goal: str = ""


def _margin(drop: float, minutes: float, **more: str) -> dict[str, str]:
    return {"--max-drop": f"{drop:g}", "--max-minutes": f"{minutes:g}", **more}


CASES: dict[str, Case] = {
    "complete-journey-10": Case(
        "complete-journey", _margin(0.001, 10), goal="tables >= 500x, bundle >= 300x, >= 15x eager float32, certified"
    ),
    "complete-journey-30": Case("complete-journey", _margin(0.001, 30), goal="tables >= 1,000x, certified"),
    "complete-journey-800x": Case(
        "complete-journey", _margin(0.001, 30, **{"--min-size-ratio": "800"}), goal="tables >= 1,000x, certified"
    ),
    "complete-journey-0.002": Case(
        "complete-journey", _margin(0.002, 38), after="complete-journey-30", goal="how far towards 8,192x"
    ),
    "complete-journey-0.005": Case(
        "complete-journey", _margin(0.005, 46), after="complete-journey-0.002", goal="how far towards 8,192x"
    ),
    "movielens-1m": Case("movielens-1m", _margin(0.002, 6), goal="budget met"),
    "online-retail": Case("online-retail", _margin(0.005, 6), goal="budget met"),
    "beauty-sasrec": Case("beauty-sasrec", _margin(0.005, 8), goal="budget met"),
    "lenet-300-100": Case("lenet-300-100", _margin(0.003, 6), goal="budget met"),
    "pneumonia": Case("pneumonia", _margin(0.02, 5), goal="budget met"),
    "traffic-signs": Case("traffic-signs", _margin(0.01, 6), goal="budget met"),
}


def run_case(name: str) -> Json:
    """Run one command, and read its bundle back."""
    case = CASES[name]
    folder = cache_folder() / "auto" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bundle, run = folder / "model.fly", folder / "search"
    if case.after:
        shutil.copytree(cache_folder() / "auto" / case.after / "search", run)
    flyweight = [str(Path(sys.executable).with_name("flyweight"))]
    options = [word for pair in case.options.items() for word in pair]
    command = [*flyweight, "compress", case.task, *options, "--out", str(bundle), "--run", str(run)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "100"})
    seconds = time.monotonic() - began
    if not bundle.exists():
        raise SystemExit(f"{name}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    facts = json.loads(subprocess.run([*flyweight, "inspect", str(bundle), "--json", "-"], capture_output=True).stdout)
    row = {
        "case": name,
        "task": case.task,
        "goal": case.goal,
        "options": case.options,
        "after": case.after,
        "exit_code": done.returncode,
        "seconds": round(seconds, 1),
        "folder_bytes": bytes_on_disk(bundle),
        "facts": facts,
        "said": done.stdout.replace(str(cache_folder()), "~/.cache/flyweight"),  # no path of this machine
        "trials": trials_of(run),
        "hardware": describe_hardware(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"auto_{name}.json").write_text(json.dumps(row, indent=1, ensure_ascii=False) + "\n")
    print(done.stdout, f"{name}: exit code {done.returncode}, {seconds:.0f} s, {len(row['trials'])} trials", flush=True)
    return row


def trials_of(run: Path) -> list[Json]:
    """Return every trial of a search, as its database keeps them."""
    from flyweight.planning.search.study import kept_outcomes

    return [outcome.plain() for outcome in kept_outcomes(run)]


def main() -> None:
    """Run the cases that are named, or all of them, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="*", default=None, choices=[*CASES], help="all of them unless named")
    parser.add_argument("--ablation", metavar="CASE", help="what each method adds, of a case that was run")
    parser.add_argument("--tables", action="store_true", help="only write the tables anew")
    args = parser.parse_args()
    if args.ablation:
        from auto_ablation import ablate

        run = cache_folder() / "auto" / args.ablation / "search"
        ablate(CASES[args.ablation].task, run, RESULTS / "auto_ablation.json")
    elif not args.tables:
        for name in args.case if args.case is not None else CASES:
            run_case(name)
    auto_tables.write(HERE.parent / "docs" / "planning.md")


if __name__ == "__main__":
    main()
