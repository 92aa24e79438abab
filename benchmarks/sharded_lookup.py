"""Lookups over servers against lookups in the process: overhead, transport, memory, faults, stand-ins.

    python benchmarks/sharded_lookup.py                 # all parts; results/sharded_lookup.json, docs/sharding.md
    python benchmarks/sharded_lookup.py --parts latency # one of them; the others stay as they were measured

One request of 500 candidates, the bundle whole and over two servers on loopback, scored in turns. Bundles are made of
the default ranker: its tables coded and nothing else, and as it is in float32, where a row is 64 bytes instead of two.
"""

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import flyweight as fw
from flyweight.bundle.shards.ranker import ShardedRanker
from flyweight.cost.hardware import describe_hardware
from flyweight.cost.resident import measure_resident
from flyweight.cost.sizes import bytes_on_disk
from flyweight.quality.auc import auc
from flyweight.zoo.cache import cache_folder
from flyweight.zoo.tasks import ZOO
from page_section import put

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "sharded_lookup.json"
CASES = {"coded": (fw.EncodeTables(ratio=126, seed=0),), "float32": ()}
CANDIDATES, ROUNDS, WARM = 500, 3_000, 300
#: Of the table whose memory is measured: rows of 16 float32 numbers.
BIG = 10_000_000
PARTS = ("transport", "processor", "latency", "memory", "faults", "quality")
Json = dict[str, Any]


def bundle_of(name: str) -> Path:
    """Return the bundle of a case, made once."""
    path = cache_folder() / "sharded" / f"{name}.fly"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fw.compress(ZOO["complete-journey"](), steps=list(CASES[name])).save(path)
    return path


class Server:
    """`flyweight serve-shard`, a process."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        code = "from flyweight.cli.main import main; main()"
        words = [sys.executable, "-c", code, "serve-shard", str(folder), "--port", str(port)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        found = re.search(r"on ([\d.]+:(\d+))$", said.strip())
        assert found is not None, said
        self.address, self.port = found[1], int(found[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(folders: Sequence[Path]) -> Iterator[list[Server]]:
    """Serve shards, each in a process."""
    with ExitStack() as stack:
        servers = []
        for folder in folders:
            server = Server(folder)
            stack.callback(server.kill)
            servers.append(server)
        yield servers


def request_of(ranker: Any, seed: int) -> tuple[Json, Json]:
    """Return ids of the whole range for one request of many candidates."""
    rng = np.random.default_rng(seed)
    inputs = ranker.manifest.inputs
    asked = {name: int(rng.integers(one.rows)) for name, one in inputs.items() if one.role == "request"}
    offered = {name: rng.integers(0, one.rows, CANDIDATES) for name, one in inputs.items() if one.role != "request"}
    return asked, offered


def percentiles(seconds: Sequence[float]) -> Json:
    """Return p50 and p99 in ms."""
    p50, p99 = np.percentile(np.array(seconds) * 1e3, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "n": len(seconds)}


def in_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time calls in turns, the first of a round another each time."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds + WARM):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begun = time.perf_counter()
            calls[name]()
            if number >= WARM:
                taken[name].append(time.perf_counter() - begun)
    return taken


def latency(folder: Path) -> Json:
    """Time a request whole and over two servers, and what the parts of the way take."""
    told: Json = {}
    for name in CASES:
        path = bundle_of(name)
        out = fw.shard(path, folder / f"{name}.fly", shards=2).path
        with serving([out / "shard-0", out / "shard-1"]) as servers:
            addresses = [server.address for server in servers]
            with fw.load(path) as whole, fw.load(out, shards=addresses, engine=whole.engine) as parts:
                assert isinstance(parts, ShardedRanker)
                told[name] = timed(whole, parts)
        told[name]["engine"], told[name]["bytes"] = whole.engine, bytes_on_disk(path)
        print(name, told[name], flush=True)
    return told


def timed(whole: fw.bundle.ranker.Ranker, parts: ShardedRanker) -> Json:  # type: ignore[name-defined]
    """Return times and the largest difference of scores."""
    asked, offered = request_of(whole, 0)
    differences = []
    for seed in range(20):
        one = request_of(whole, seed)
        differences.append(float(np.abs(whole.score(*one) - parts.score(*one)).max()))
    heard: dict[str, Any] = {}
    joined = parts._joined
    given, run = heard, joined.run
    joined.run = lambda inputs: given.update(inputs=inputs) or run(inputs)  # type: ignore[method-assign]
    parts.score(asked, offered)
    del joined.run
    places = joined._asking.places(heard["inputs"])
    calls = {
        "whole": lambda: whole.score(asked, offered),
        "sharded": lambda: parts.score(asked, offered),
        "which rows": lambda: joined._asking.places(heard["inputs"]),
        "their rows": lambda: joined._gather.rows(places),
    }
    load = os.getloadavg()[0]
    taken = in_turns(calls, ROUNDS)
    paired = np.subtract(taken["sharded"], taken["whole"])
    return {
        "rows_asked": sum(one.size for one in places),
        "max_difference": max(differences),
        "ms": {name: percentiles(seconds) for name, seconds in taken.items()},
        "paired_ms": percentiles(paired.tolist()),
        "load_average": load,
    }


def processor(folder: Path) -> Json:
    """Return the processor time that the lookups of a request take: what else a machine runs hardly counts."""
    told: Json = {}
    for name in CASES:
        out = fw.shard(bundle_of(name), folder / f"{name}.fly", shards=2).path
        with serving([out / "shard-0", out / "shard-1"]) as servers:
            addresses = [server.address for server in servers]
            with fw.load(out, shards=addresses, engine="onnxruntime", timeout=10.0) as parts:
                assert isinstance(parts, ShardedRanker)
                told[name] = used_by(parts, servers)
        print("processor", name, told[name], flush=True)
    return told


def used_by(parts: ShardedRanker, servers: Sequence[Server], calls: int = 2_000) -> Json:
    """Return milliseconds of processor time for a request's lookups: of the front, and of the busier server."""
    joined, heard = parts._joined, []
    run = joined.run
    joined.run = lambda inputs: heard.append(inputs) or run(inputs)  # type: ignore[method-assign,func-returns-value]
    parts.score(*request_of(parts, 0))
    del joined.run
    before, begun = [used(server) for server in servers], time.process_time()
    for _ in range(calls):
        joined._gather.rows(joined._asking.places(heard[0]))
    front = time.process_time() - begun
    after = [used(server) for server in servers]
    each = [end - start for end, start in zip(after, before, strict=True)]
    return {"front": 1e3 * front / calls, "server": 1e3 * max(each) / calls}


def used(server: Server) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Transport: the same rows over gRPC and over our sockets.


def grpc_server(path: str, port: Any) -> None:
    """Answer places with rows, both as bytes, in a process of its own."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    rows = np.load(path, mmap_mode="r")

    class Rows(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda data, context: rows[np.frombuffer(data, "<u4")].tobytes())

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Rows(),))
    port.put(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


def transport(folder: Path) -> Json:
    """Ask two servers for 3,500 rows each, over gRPC and over a shard's connections."""
    told: Json = {}
    for name in CASES:
        out = fw.shard(bundle_of(name), folder / f"t-{name}.fly", shards=2).path
        told[name] = both_ways(out, folder)
        print("transport", name, told[name], flush=True)
    return told


def both_ways(out: Path, folder: Path) -> Json:
    """Return round trips over gRPC, over sockets, and over sockets with each row asked for once."""
    import grpc

    from flyweight.bundle.shards import gather
    from flyweight.bundle.shards.read import read_front

    plan = read_front(out).plan
    largest = max(range(len(plan.tables)), key=lambda number: plan.tables[number].rows)
    table = plan.tables[largest]
    drawn = np.random.default_rng(0).integers(0, table.rows, 7_000)
    asked = [drawn if one.table == largest else drawn[:0] for one in plan.lookups]
    context = multiprocessing.get_context("spawn")
    with serving([out / "shard-0", out / "shard-1"]) as servers, ExitStack() as stack:
        ranker = stack.enter_context(fw.load(out, shards=[server.address for server in servers]))
        ports = []
        for number in range(2):
            rows = np.zeros((table.rows // 2 + 1, *table.row), table.dtype)
            np.save(folder / f"rows-{number}.npy", rows)
            queue = context.Queue()
            process = context.Process(target=grpc_server, args=(str(folder / f"rows-{number}.npy"), queue), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
            ports.append(queue.get())
        stubs = [
            stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}")).unary_unary("/rows/of") for port in ports
        ]
        halves = [(drawn[start::2] // 2).astype("<u4").tobytes() for start in (0, 1)]

        def over_grpc() -> list[bytes]:
            return [one.result() for one in [stub.future(half) for stub, half in zip(stubs, halves, strict=True)]]

        def over_sockets(once_from: int) -> object:
            gather.ONCE_FROM = once_from
            return ranker._joined._gather.rows(asked)

        calls = {
            "gRPC": over_grpc,
            "sockets": lambda: over_sockets(2**30),
            "sockets, each row once": lambda: over_sockets(1),
        }
        load = os.getloadavg()[0]
        taken = in_turns(calls, 1_000)
    row_bytes = int(np.prod(table.row, dtype=int)) * np.dtype(table.dtype).itemsize
    found: Json = {name: percentiles(one) for name, one in taken.items()}
    return {"row_bytes": row_bytes, "rows": 7_000, "ms": found, "load_average": load}


# Memory: a generated ranker with one large table.

_FRONT = "loaded = fw.load({path!r}, threads=1{more})"
#: So many ids that nearly every page of the table is read: what is mapped then counts in full.
_SCORE = """
for seed in range(200):
    loaded.score({{'user_id': 7}}, {{'item_id': np.random.default_rng(seed).integers(0, {rows}, 20_000)}})
"""


def big_bundle(rows: int) -> Path:
    """Return a bundle of a small perceptron over one table of `rows` rows of 16 float32 numbers."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(1_000, 16), nn.Embedding(rows, 16)
            self.mlp = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))

        def forward(self, user_id: torch.Tensor, item_id: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.mlp(torch.cat([self.users(user_id), self.items(item_id)], 1))
            return out.squeeze(1)

    path = cache_folder() / "sharded" / f"big-{rows}.fly"
    if not path.exists():
        torch.manual_seed(0)
        ids = {"user_id": torch.randint(1_000, (2_000,)), "item_id": torch.randint(rows, (2_000,))}
        split = [(ids, (torch.rand(2_000) < 0.5).float())]
        fields = {"user_id": fw.Field("request", 1_000), "item_id": fw.Field("candidate", rows)}
        task = fw.Task(model=Model().eval(), inputs=fields, train=split, validation=split, test=split, metric="auc")
        path.parent.mkdir(parents=True, exist_ok=True)
        fw.compress(task, steps=[]).save(path)
    return path


def memory(folder: Path) -> Json:
    """Return resident bytes of a process that scores, whole and sharded, and of a server."""
    path = big_bundle(BIG)
    begun = time.perf_counter()
    out = fw.shard(path, folder / "big.fly", shards=2).path
    took = time.perf_counter() - begun
    score, setup = _SCORE.format(rows=BIG), "import flyweight as fw, numpy as np, onnxruntime"
    with serving([out / "shard-0", out / "shard-1"]) as servers:
        addresses = [server.address for server in servers]
        whole = measure_resident(_FRONT.format(path=str(path), more=""), score, setup=setup)
        more = f", shards={addresses!r}, timeout=10.0"
        front = measure_resident(_FRONT.format(path=str(out), more=more), score, setup=setup)
        status = Path(f"/proc/{servers[0].process.pid}/status").read_text()
    own = {key: 1024 * int(value) for key, value in re.findall(r"(RssAnon|RssFile):\s+(\d+) kB", status)}
    table = BIG * 16 * 4
    found = {
        "table_bytes": table,
        "split_seconds": took,
        "whole": {"growth": whole.growth, "peak": whole.peak},
        "front": {"growth": front.growth, "peak": front.peak},
        "server": own,
        "front_bytes_on_disk": sum(one.stat().st_size for one in out.iterdir() if one.is_file()),
    }
    print("memory", found, flush=True)
    return found


def faults(folder: Path) -> Json:
    """Return how long it takes to say that a server was killed, and to use it again."""
    out = fw.shard(bundle_of("coded"), folder / "f.fly", shards=2).path
    errors, back, words = [], [], ""
    with serving([out / "shard-0"]) as (first,):
        second = Server(out / "shard-1")
        try:
            with fw.load(out, shards=[first.address, second.address]) as ranker:
                asked, offered = request_of(ranker, 0)
                due = ranker.score(asked, offered)
                for _ in range(5):
                    second.kill()
                    begun = time.perf_counter()
                    try:
                        ranker.score(asked, offered)
                    except fw.ShardError as error:
                        words = str(error).replace(second.address, "HOST:PORT").replace(str(second.port), "PORT")
                    errors.append(time.perf_counter() - begun)
                    second = Server(out / "shard-1", second.port)
                    begun = time.perf_counter()
                    while ranker.away:  # type: ignore[attr-defined]
                        time.sleep(0.002)
                    assert np.array_equal(ranker.score(asked, offered), due)
                    back.append(time.perf_counter() - begun)
        finally:
            second.kill()
    found = {"error_ms": [1e3 * one for one in errors], "back_seconds": back, "words": words}
    print("faults", found, flush=True)
    return found


def quality(folder: Path) -> Json:
    """Return the AUC on test rows with all shards, and with one of two away."""
    task = ZOO["complete-journey"]()
    read = [(inputs, target.numpy()) for inputs, target, _ in task.batches("test")]
    tests = [({name: one.numpy() for name, one in inputs.items()}, target) for inputs, target in read]
    targets = np.concatenate([target for _, target in tests])
    told: Json = {"rows": len(targets), "auc": {}}
    for by, counted in (("rows", False), ("rows", True), ("tables", True)):
        batches = ({name: one.numpy() for name, one in inputs.items()} for inputs, _, _ in task.batches("train"))
        traffic = batches if counted else None
        out = fw.shard(bundle_of("coded"), folder / f"q-{by}-{counted}.fly", shards=2, by=by, traffic=traffic).path
        for lost in (0, 1):
            counting = "rows counted over the training split" if counted else "each row counted once"
            words = f"shard {lost}, split by {by}, {counting}"
            told["auc"]["none"], told["auc"][words] = without(out, lost, tests, targets)
    print("quality", told, flush=True)
    return told


def without(out: Path, lost: int, tests: Sequence[tuple[Json, Any]], targets: Any) -> tuple[float, float]:
    """Return the AUC with all shards and with one away."""
    with ExitStack() as stack:
        servers = stack.enter_context(serving([out / "shard-0", out / "shard-1"]))
        addresses = [one.address for one in servers]
        ranker = stack.enter_context(fw.load(out, shards=addresses, missing="degrade", timeout=30.0))
        exact = np.concatenate([ranker.predict(inputs) for inputs, _ in tests])
        servers[lost].kill()
        degraded = np.concatenate([ranker.predict(inputs) for inputs, _ in tests])
        assert ranker.degraded  # type: ignore[attr-defined]
    return auc(exact, targets), auc(degraded, targets)


def pages(found: Json) -> dict[str, str]:
    """Return the tables for the page, by mark."""
    made: dict[str, str] = {}
    if "latency" in found:
        lines = [
            "| bundle | a row | rows asked | whole p50 | p99 | 2 servers p50 | p99 | overhead of a request, paired p50 "
            "| p99 - p99 | largest difference |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for name, one in found["latency"].items():
            whole, parts = one["ms"]["whole"], one["ms"]["sharded"]
            bytes_of = found["transport"][name]["row_bytes"]
            lines.append(
                f"| {name}, {one['engine']} | {bytes_of} bytes | {one['rows_asked']:,} | {whole['p50']:.2f} ms | "
                f"{whole['p99']:.2f} ms | {parts['p50']:.2f} ms | {parts['p99']:.2f} ms | "
                f"**{one['paired_ms']['p50']:.2f} ms** | **{parts['p99'] - whole['p99']:.2f} ms** | "
                f"{one['max_difference']:g} |"
            )
        lines += ["", "| part of the way, p50 (p99) | " + " | ".join(found["latency"]) + " |"]
        lines += ["|---" * (1 + len(found["latency"])) + "|"]
        for part in ("which rows", "their rows"):
            times = [one["ms"][part] for one in found["latency"].values()]
            cells = (f"{one['p50']:.2f} ({one['p99']:.2f}) ms" for one in times)
            lines.append(f"| {part} | " + " | ".join(cells) + " |")
        load = ", ".join(f"{one['load_average']:.1f}" for one in found["latency"].values())
        made["latency"] = "\n".join([*lines, "", f"Load average of the machine (2 cores) as timing began: {load}."])
    if "processor" in found:
        lines = ["| processor time of a request's lookups | in the front | in the busier server |", "|---|---|---|"]
        lines += [
            f"| {name} | {one['front']:.2f} ms | {one['server']:.2f} ms |" for name, one in found["processor"].items()
        ]
        made["processor"] = "\n".join(lines)
    if "transport" in found:
        ways = list(next(iter(found["transport"].values()))["ms"])
        lines = ["| 7,000 rows of two servers, p50 (p99) | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
        for one in found["transport"].values():
            cells = (f"{one['ms'][way]['p50']:.2f} ({one['ms'][way]['p99']:.2f}) ms" for way in ways)
            lines.append(f"| rows of {one['row_bytes']} bytes | " + " | ".join(cells) + " |")
        load = ", ".join(f"{one['load_average']:.1f}" for one in found["transport"].values())
        made["transport"] = "\n".join([*lines, "", f"Load average as timing began: {load}."])
    if "memory" in found:
        one = found["memory"]
        lines = ["| process | resident bytes that loading and 200 requests of 20,000 candidates add |", "|---|---|"]
        lines += [f"| the bundle whole | {one['whole']['growth'] / 1e6:,.0f} MB |"]
        lines += [f"| the front | {one['front']['growth'] / 1e6:,.0f} MB |"]
        lines += [f"| a server, its own memory (all of its process) | {one['server']['RssAnon'] / 1e6:,.0f} MB |"]
        lines += [f"| a server, pages of files, its rows among them | {one['server']['RssFile'] / 1e6:,.0f} MB |"]
        made["memory"] = "\n".join(lines)
    if "faults" in found:
        one = found["faults"]
        made["faults"] = (
            f"Killed with `kill -9` five times: the request that notices fails after {max(one['error_ms']):.1f} ms at "
            f"most, and the restarted server is used again {max(one['back_seconds']):.2f} s after it listens, at most, "
            f"with the same scores. What is said:\n\n    {one['words']}"
        )
    if "quality" in found:
        one = found["quality"]
        lines = [f"| away, of two shards | AUC on {one['rows']:,} test rows |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in one["auc"].items()]
        made["quality"] = "\n".join(lines)
    return made


def main() -> None:
    """Measure, and write JSON and tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    found: Json = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in args.parts:
        with tempfile.TemporaryDirectory(prefix="flyweight-shards-") as folder:
            found[part] = globals()[part](Path(folder))
        found["hardware"] = describe_hardware()
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    for name, text in pages(found).items():
        put(HERE.parent / "docs" / "sharding.md", f"sharded_{name}", text)


if __name__ == "__main__":
    main()
