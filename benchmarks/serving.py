"""What serving over a network adds to scoring, what joining requests gains, and what workers share.

    python benchmarks/serving.py demo/ranker.fly      # three minutes; writes JSON and the tables in docs/serving.md

The service and the load are processes of their own on one machine, over loopback, so each takes time from the other.
The engine alone and each protocol are measured in turns, several rounds, so that a slow spell of the machine meets all
of them. `--large` names a bundle with large tables, for the memory that workers share: the compressed ones are too
small to tell, so take one that was made without steps (`fw.compress(task, steps=[])`).
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

import flyweight as fw
from flyweight.cost.hardware import describe_hardware
from flyweight.cost.latency import time_rounds
from flyweight.engines.registry import find_engine
from flyweight.serving.call import Call, takes_of
from flyweight.serving.datatypes import datatype_of
from flyweight.serving.grpc_messages import messages
from flyweight.serving.scoring import score_call, score_calls
from flyweight.serving.vocabulary import Vocabularies
from flyweight.serving.warming import sample_call
from page_section import put
from serving_load import KINDS

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "serving.json"
DOCS = HERE.parent / "docs" / "serving.md"
CANDIDATES, ROUNDS, SECONDS, REPEATS = 500, 5, 1.5, 400
CONNECTIONS, TOGETHER = (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32)
Json = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="?", default=HERE.parent / "demo" / "ranker.fly")
    parser.add_argument("--large", type=Path)
    parser.add_argument("--only", choices=PARTS, help="measure one part again, the others stay as they were")
    given = parser.parse_args()
    found: Json = {"candidates": CANDIDATES} if given.only is None else json.loads(RESULTS.read_text())
    found["hardware"] = describe_hardware()
    for name in PARTS if given.only is None else (given.only,):
        bundle = given.large or given.bundle if name == "memory" else given.bundle
        found[name] = {"load_average": os.getloadavg()[0], "rows": PARTS[name](bundle)}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    render(found)


def engines() -> list[str]:
    return [name for name in ("onnxruntime", "openvino") if find_engine(name).available() is None]


@contextmanager
def running(bundle: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A service: its process, its HTTP and its gRPC address."""
    command = [sys.executable, "-c", "from flyweight.cli.main import main; main()", "serve", f"ranker={bundle}"]
    command += ["--port", "0", "--grpc-port", "0", "--drain", "0", *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://(\S+), gRPC at (\S+) with", line)
        assert found, line
        yield process, found[1], found[2]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def opened(bundle: Path) -> tuple[Any, Call]:
    """A ranker, and a request of its stored ones with as many candidates as are timed."""
    ranker = fw.load(bundle)
    return ranker, sample_call(ranker, takes_of("ranker", ranker, 100_000, Vocabularies()), CANDIDATES)


def median_ms(call: Callable[[], object], seconds: float = 1.0) -> float:
    for _ in range(20):
        call()
    times, end = [], time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        call()
        times.append(time.perf_counter() - now)
    return 1e3 * float(np.median(times))


def joined(bundle: Path) -> list[Json]:
    """Requests of one size scored one after the other, and together."""
    ranker, call = opened(bundle)
    rows = []
    for count in TOGETHER:
        calls = [call] * count
        forms = {
            "apart_ms": lambda calls=calls: [score_call(ranker, one) for one in calls],
            "together_ms": lambda calls=calls: score_calls(ranker, calls),
        }
        threads = ranker.bundle.timing.threads or 0
        took = time_rounds(forms, candidates=CANDIDATES * count, threads=threads, repeats=REPEATS, warmup=20).samples
        # What a call costs by itself: the upper half tells of what else the machine did.
        rows.append({"requests": count, **{name: float(np.percentile(one, 10)) for name, one in took.items()}})
    return rows


def write_request(call: Call, folder: Path) -> dict[str, Any]:
    """Write a request in every form that the load sends."""
    arrays = {**call.asked, **call.offered}
    np.savez(folder / "request.npz", **arrays)
    entries = [{"name": k, "shape": list(a.shape), "datatype": datatype_of(a.dtype)} for k, a in arrays.items()]
    plain = [entry | {"data": array.ravel()} for entry, array in zip(entries, arrays.values(), strict=True)]
    (folder / "http-json").write_bytes(orjson.dumps({"inputs": plain}, option=orjson.OPT_SERIALIZE_NUMPY))
    sized = [
        entry | {"parameters": {"binary_data_size": array.nbytes}}
        for entry, array in zip(entries, arrays.values(), strict=True)
    ]
    head = orjson.dumps({"inputs": sized, "parameters": {"binary_data_output": True}})
    (folder / "header_length").write_text(str(len(head)))
    (folder / "http-binary").write_bytes(head + b"".join(array.tobytes() for array in arrays.values()))
    raw = [array.tobytes() for array in arrays.values()]
    message = messages()["ModelInferRequest"](model_name="ranker", inputs=entries, raw_input_contents=raw)
    (folder / "grpc-raw").write_bytes(message.SerializeToString())
    return arrays


def load(kind: str, address: str, folder: Path, connections: int = 1) -> Json:
    """Run the load in its own process."""
    command = [sys.executable, str(HERE / "serving_load.py"), kind, address, str(folder)]
    command += ["--connections", str(connections), "--seconds", str(SECONDS)]
    found: Json = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def overhead(bundle: Path) -> Json:
    """Milliseconds of a request by protocol, beside the engine alone and `Ranker.score`."""
    with tempfile.TemporaryDirectory() as folder:
        return overhead_in(bundle, Path(folder))


def overhead_in(bundle: Path, folder: Path) -> Json:
    ranker, call = opened(bundle)
    arrays = write_request(call, folder)
    engine = find_engine(ranker.engine).prepare(ranker.bundle.model, ranker.bundle.timing.threads or 0)
    known = {name: arrays[name] for name in ranker.bundle.graph.inputs}
    here: dict[str, Callable[[], object]] = {
        "engine": lambda: engine.run(known),
        "score": lambda: ranker.score(call.asked, call.offered),
    }
    times: dict[str, list[float]] = {name: [] for name in (*here, *KINDS)}
    with running(bundle) as (_, http, grpc):
        for _ in range(ROUNDS):
            for name, run in here.items():
                times[name].append(median_ms(run))
            for kind in KINDS:
                times[kind] += load(kind, grpc if "grpc" in kind else http, folder)["ms"]
    base = float(np.median(times["engine"]))
    return {name: quantiles(one) | {"over_engine_ms": float(np.median(one)) - base} for name, one in times.items()}


def quantiles(times: list[float]) -> Json:
    p50, p95, p99 = np.percentile(times, (50, 95, 99)).tolist()
    return {"n": len(times), "p50": p50, "p95": p95, "p99": p99}


def throughput(bundle: Path) -> list[Json]:
    """Requests a second of callers that ask without a pause."""
    with tempfile.TemporaryDirectory() as folder:
        write_request(opened(bundle)[1], Path(folder))
        return [row for workers in (1, 2) for row in throughput_of(bundle, Path(folder), workers)]


def throughput_of(bundle: Path, folder: Path, workers: int) -> list[Json]:
    rows = []
    with running(bundle, "--workers", workers) as (_, http, _):
        for connections in CONNECTIONS:
            found = load("http-binary", http, folder, connections)
            rate = found["n"] / found["seconds"]
            row = {"workers": workers, "connections": connections, "a_second": rate}
            rows.append(row | quantiles(found["ms"]))
    return rows


def memory(bundle: Path) -> list[Json]:
    return [memory_of(bundle, engine, workers) for engine in engines() for workers in (1, 2, 4)]


def memory_of(bundle: Path, engine: str, workers: int) -> Json:
    """Megabytes of the workers by /proc/PID/smaps: each one's share of what several map is counted in part (PSS)."""
    with running(bundle, "--workers", workers, "--engine", engine) as (process, _, _):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        found = [pss(int(child)) for child in children]
    data = sum(file.stat().st_size for file in bundle.glob("model.onnx*"))
    assert len(found) == workers
    return {
        "engine": engine,
        "workers": workers,
        "model_bytes_on_disk": data,
        "model_pss_bytes": sum(one["model"] for one in found),
        "pss_bytes": sum(one["all"] for one in found),
        "private_bytes": [one["private"] for one in found],
    }


def pss(process: int) -> dict[str, int]:
    found, mapped = {"all": 0, "model": 0, "private": 0}, ""
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        fields = line.split()
        if re.match(r"[0-9a-f]+-", line):
            mapped = fields[5] if len(fields) > 5 else ""
        elif fields[0] == "Pss:":
            found["all"] += int(fields[1]) * 1024
            found["model"] += int(fields[1]) * 1024 * ("model.onnx" in mapped)
        elif fields[0].startswith("Private_"):
            found["private"] += int(fields[1]) * 1024
    return found


NAMES = {
    "engine": "the engine alone",
    "score": "`Ranker.score` in a process",
    "http-binary": "HTTP, binary tensors",
    "http-json": "HTTP, JSON",
    "grpc-raw": "gRPC, raw tensors",
    "triton-http": "HTTP by `tritonclient`, its own work included",
    "triton-grpc": "gRPC by `tritonclient`, its own work included",
}


def render(found: Json) -> None:
    """Put the tables into the page."""
    hardware = found["hardware"]
    for name, table in TABLES.items():
        busy = f"the machine's load average before it was {found[name]['load_average']:.0f}, of other work"
        note = f"\n\n{hardware['cpu']}, {hardware['cores']} cores, service and load on the same; {busy}."
        put(DOCS, name, table(found) + (note if name != "memory" else ""))
        print(table(found))


def over_table(found: Json) -> str:
    head = f"1 x {found['candidates']} candidates, one caller"
    lines = [f"| {head} | p50 ms | p95 | p99 | over the engine, p50 | requests |", "|---|---|---|---|---|---|"]
    for name, row in found["overhead"]["rows"].items():
        over = "" if name == "engine" else f"{row['over_engine_ms']:.2f}"
        tails = ("", "") if name in ("engine", "score") else (f"{row['p95']:.2f}", f"{row['p99']:.2f}")
        count = "" if name in ("engine", "score") else f"{row['n']:,}"
        lines.append(f"| {NAMES[name]} | {row['p50']:.2f} | {tails[0]} | {tails[1]} | {over} | {count} |")
    return "\n".join(lines)


def joined_table(found: Json) -> str:
    head = f"requests of {found['candidates']} candidates"
    lines = [f"| {head} | one after the other, ms (p10) | joined, ms (p10) | gain |", "|---|---|---|---|"]
    for row in found["joined"]["rows"]:
        gain = row["apart_ms"] / row["together_ms"]
        lines.append(f"| {row['requests']} | {row['apart_ms']:.2f} | {row['together_ms']:.2f} | {gain:.2f}x |")
    return "\n".join(lines)


def throughput_table(found: Json) -> str:
    lines = ["| workers | callers | requests a second | p50 ms | p99 ms |", "|---|---|---|---|---|"]
    for row in found["throughput"]["rows"]:
        tail = f"{row['p50']:.2f} | {row['p99']:.2f}"
        lines.append(f"| {row['workers']} | {row['connections']} | {row['a_second']:,.0f} | {tail} |")
    return "\n".join(lines)


def memory_table(found: Json) -> str:
    heads = ("engine", "workers", "model on disk, MB", "model in memory, all workers, MB", "all of the workers, MB")
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|"]
    for row in found["memory"]["rows"]:
        sizes = (row["model_bytes_on_disk"], row["model_pss_bytes"], row["pss_bytes"])
        cells = " | ".join(f"{size / 2**20:,.1f}" for size in sizes)
        lines.append(f"| {row['engine']} | {row['workers']} | {cells} |")
    return "\n".join(lines)


PARTS: dict[str, Callable[[Path], Any]] = {
    "overhead": overhead,
    "joined": joined,
    "throughput": throughput,
    "memory": memory,
}
TABLES: dict[str, Callable[[Json], str]] = {
    "overhead": over_table,
    "joined": joined_table,
    "throughput": throughput_table,
    "memory": memory_table,
}


if __name__ == "__main__":
    main()
