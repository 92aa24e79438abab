"""A bundle that `auto.py` made against eager PyTorch, at one thread and at all of them, as a server calls it.

    python benchmarks/auto_threads.py complete-journey-10       # writes results/auto_threads.json

Requests of 500 candidates with rows of their own, in turns; ours is `Ranker.score` with its checks of the inputs. A
bundle takes as many threads as it is quickest with, which for a small one is one. Each pair of numbers of threads is
timed in a process of its own: threads that one pool has left behind slow the next.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from typing import Any

import torch

import flyweight as fw
from auto import CASES, RESULTS
from dense_harness import as_json
from flyweight.cost.hardware import allowed_cores, describe_hardware
from flyweight.cost.latency import in_turn, speedup, time_rounds
from flyweight.planning.requests import as_arrays, served_rows, timed_requests
from flyweight.task.scores import evaluating
from flyweight.zoo.cache import cache_folder
from flyweight.zoo.tasks import ZOO

SECONDS, REQUESTS, ROUNDS = 20.0, 16, 1_000
Json = dict[str, Any]


def race(case: str, threads: int, own: int) -> Json:
    """Time PyTorch with so many threads, and the bundle with as many as its own."""
    torch.set_num_threads(threads)
    task = ZOO[CASES[case].task]()
    ranker = fw.load(cache_folder() / "auto" / case / "model.fly", threads=own)
    rows = served_rows(task)
    requests = timed_requests(task, rows, REQUESTS)
    of_request = [name for name, one in task.inputs.items() if one.role == "request"]

    def eager(request: dict[str, torch.Tensor]) -> object:
        with torch.inference_mode():
            return task.model(**request)

    def served(arrays: dict[str, Any]) -> object:
        asked = {name: value[0] for name, value in arrays.items() if name in of_request}
        return ranker.score(asked, {name: value for name, value in arrays.items() if name not in of_request})

    calls = {
        "eager": in_turn([partial(eager, one) for one in requests]),
        "bundle": in_turn([partial(served, as_arrays(one)) for one in requests]),
    }
    with evaluating(task.model):
        rounds = time_rounds(calls, candidates=rows, threads=threads, repeats=ROUNDS, seconds=SECONDS)
    times = {name: rounds.latency(name) for name in calls}
    return {
        "threads": threads,
        "bundle_threads": own,
        "ms": {name: {"p50": one.p50, "p95": one.p95, "p99": one.p99} for name, one in times.items()},
        "speedup": as_json(speedup(rounds, "eager", "bundle")),
        "rounds": len(rounds.samples["eager"]),
    }


def main() -> None:
    """Race at each number of threads, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=[*CASES])
    parser.add_argument("--threads", type=int, nargs=2, help="PyTorch's and the bundle's, this pair alone")
    args = parser.parse_args()
    if args.threads:
        print(json.dumps(race(args.case, *args.threads)))
        return
    found = []
    every = sorted({1, allowed_cores()})
    for threads, own in [(one, other) for one in every for other in every if other <= one]:
        command = [sys.executable, __file__, args.case, "--threads", str(threads), str(own)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(found[-1], flush=True)
    told = {"case": args.case, "races": found, "hardware": describe_hardware()}
    (RESULTS / "auto_threads.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
