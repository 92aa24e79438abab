"""The default ranker and DIN on a GPU: PyTorch's own ways beside ours, with the share of the device's limits.

    python benchmarks/gpu.py                             # on a machine with a CUDA device, under an hour
    python benchmarks/gpu.py --bundle demo/ranker.fly    # the compressed ranker takes part too
    python benchmarks/gpu.py --docs                      # anywhere: only the page of what was measured before

Writes results/gpu.json and the table of docs/gpu.md.

All contenders of a size take turns in one process. "On the device": inputs lie there already and scores stay there.
"From arrays": with the copies to the device and back. The device is waited for before and after every call.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flyweight.cost.hardware import describe_hardware
from flyweight.cost.latency import time_interleaved
from flyweight.cost.limits import Limits, as_data
from flyweight.cost.onnx_work import count_work
from flyweight.cost.roofline import hold_against
from flyweight.engines.cuda_device import no_cuda_device
from flyweight.engines.export import export_onnx
from flyweight.engines.registry import find_engine
from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.rules import RULES
from flyweight.task.measurement import Latency
from gpu_cases import Case, Request, make_request, zoo_case
from gpu_contenders import BUNDLE, EAGER, ORIGINAL, REWRITTEN, Contender, as_taken, contenders
from gpu_docs import write_docs
from gpu_limits import device_limits, synchronise

RESULTS = Path(__file__).parent / "results" / "gpu.json"
RANKER = "complete-journey"
CASES = (RANKER, "complete-journey-din")
#: Requests x candidates of each.
SIZES = ((1, 500), (1, 4096), (64, 500))
REPEATS, SECONDS = 200, 40.0
#: How far scores may lie from the file's own in ONNX Runtime on the processor, root mean square, of their spread.
FAR = {"float32": 1e-3, "bfloat16": 0.1}

Json = dict[str, Any]


def write_files(case: Case, folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Export a model as it is and with every request worked out once; return the files and what was refused."""
    some = make_request(case, requests=4, candidates=8).flat
    batch = {name: torch.from_numpy(value) for name, value in some.items()}
    found = hoist(case.model, case.fields, [batch], RULES)
    files = {ORIGINAL: export_onnx(case.model, batch, folder / ORIGINAL).path}
    if found.done:
        files[REWRITTEN] = export_onnx(found.model, batch, folder / REWRITTEN).path
    return files, [str(one) for one in (*found.refused, *found.undone)]


def measure(
    case: Case,
    files: Mapping[str, Path],
    size: tuple[int, int],
    limits: Limits,
    device: str,
    *,
    repeats: int = REPEATS,
    seconds: float = SECONDS,
    compiled: bool = True,
) -> tuple[list[Json], list[str]]:
    """Time all contenders of one size and hold each against the limits; also say who is left out and why."""
    request = make_request(case, *size)
    ready, left_out = contenders(case, files, request, device, compiled=compiled)
    right, wrong = _right(ready, files, request)
    rows = size[0] * size[1]
    resident = _timed({one.name: one.resident for one in right if one.resident}, rows, device, repeats, seconds)
    host = _timed({one.name: one.host for one in right}, rows, device, repeats, seconds)
    table = []
    for one in right:
        latency = resident.get(one.name, host[one.name])
        work = count_work(files[one.file], as_taken(files[one.file], request), one.floats)
        held = hold_against(work, limits, latency.p50)
        table.append(
            {
                "case": case.name, "requests": size[0], "candidates": size[1], "name": one.name, "floats": one.floats,
                "on_device": asdict(resident[one.name]) if one.name in resident else None,
                "from_arrays": asdict(host[one.name]), "floor_ms": held.floor_ms, "binds": held.binds,
                "fraction": held.fraction, "bytes": held.bytes, "operations": held.operations,
                "skipped": [str(skipped) for skipped in held.skipped],
            }
        )  # fmt: skip
    return table, [f"{case.name}, {size[0]} x {size[1]}, {why}" for why in (*left_out, *wrong)]


def _timed(
    calls: Mapping[str, Callable[[], object]], rows: int, device: str, repeats: int, seconds: float
) -> dict[str, Latency]:
    def waited(call: Callable[[], object]) -> Callable[[], None]:
        def one() -> None:
            call()
            synchronise(device)

        return one

    synchronise(device)
    turns = {name: waited(call) for name, call in calls.items()}
    return time_interleaved(turns, candidates=rows, threads=0, repeats=repeats, seconds=seconds) if turns else {}


def _right(
    ready: Sequence[Contender], files: Mapping[str, Path], request: Request
) -> tuple[list[Contender], list[str]]:
    """Those whose scores are the file's own, and how far the others are off."""
    own = {
        file: find_engine("onnxruntime").prepare(path, 0).run(as_taken(path, request)) for file, path in files.items()
    }
    right, wrong = [], []
    for one in ready:
        far = _far(own[one.file], one.host())
        if far <= FAR[one.floats]:
            right.append(one)
        else:
            wrong.append(f"{one.name}: scores {far:.2g} of their spread away")
    return right, wrong


def _far(own: NDArray[Any], scores: NDArray[Any]) -> float:
    if own.size != scores.size or not np.isfinite(scores).all():
        return float("inf")
    return float(np.sqrt(np.mean(np.square(own.ravel() - scores.ravel()))) / max(float(own.std()), 1e-12))


def table(rows: Sequence[Json]) -> str:
    """The rows as Markdown; times in milliseconds."""
    lines = [
        "| | requests x candidates | | on the device p50 / p95 / p99 | from arrays p50 / p95 / p99 | x eager | floor "
        "| bound by | of the limit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    eager = {_place(one): one["on_device"]["p50"] for one in rows if one["name"] == EAGER}
    for one in rows:
        faster = eager[_place(one)] / one["on_device"]["p50"] if one["on_device"] and _place(one) in eager else None
        cells = [
            one["case"],
            f"{one['requests']} x {one['candidates']:,}",
            one["name"],
            _times(one["on_device"]),
            _times(one["from_arrays"]),
            f"{faster:.1f}" if faster else "",
            f"{one['floor_ms']:.3g}",
            one["binds"],
            f"{100 * one['fraction']:.0f}%",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _place(one: Json) -> tuple[str, int, int]:
    return one["case"], one["requests"], one["candidates"]


def _times(latency: Json | None) -> str:
    return " / ".join(f"{latency[key]:.3g}" for key in ("p50", "p95", "p99")) if latency else ""


def without_device() -> str | None:
    """Why there is no CUDA device that PyTorch can use; None where there is one."""
    why = no_cuda_device()
    if why is not None or torch.cuda.is_available():
        return why
    return "the driver knows a device, this build of torch cannot use it: install one from pytorch.org/get-started"


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bundle", type=Path, help="a bundle of the default ranker, made by `flyweight demo`")
    options.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    options.add_argument("--seconds", type=float, default=SECONDS, help="the most that one size's calls take, twice")
    options.add_argument("--docs", action="store_true", help="only write the table of what was measured before")
    given = options.parse_args(arguments)
    bundle = given.bundle
    if given.docs:
        _write_docs_again()
        return
    why = without_device()
    if why is not None:
        print(f"no CUDA device: {why}. Nothing was measured and nothing written.")
        return
    limits = device_limits("cuda")
    rows: list[Json] = []
    left_out: list[str] = []
    hardware = {**describe_hardware(), "gpu": torch.cuda.get_device_name(0), "cuda": torch.version.cuda}
    for name in given.case:
        case = zoo_case(name)
        with tempfile.TemporaryDirectory() as folder:
            files, refused = write_files(case, Path(folder))
            left_out += refused
            if bundle is not None and name == RANKER:
                files[BUNDLE] = bundle / "model.onnx"
            for size in SIZES:
                say(f"{name}, {size[0]} x {size[1]:,}")
                measured, missing = measure(case, files, size, limits, "cuda", seconds=given.seconds)
                rows, left_out = rows + measured, left_out + missing
                # As it comes: a machine that is lent may be taken back.
                found = {"hardware": hardware, "limits": as_data(limits), "rows": rows, "left_out": left_out}
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    write_docs(found, table(rows))
    print(table(rows))
    print("\n".join(f"left out: {one}" for one in left_out))


def say(words: str) -> None:
    """Tell whoever waits."""
    print(f"[{time.strftime('%H:%M:%S')}] {words}", file=sys.stderr, flush=True)


def _write_docs_again() -> None:
    if not RESULTS.exists():
        print(f"{RESULTS.name} is not there: nothing was measured yet, and nothing written.")
        return
    found = json.loads(RESULTS.read_text())
    write_docs(found, table(found["rows"]))


if __name__ == "__main__":
    main()
