"""What a gRPC request costs a worker that refuses it: before its message is decoded, after, and one that is answered.

    python benchmarks/serving_grpc_refusals.py BUNDLE       # half a minute; writes JSON and the docs

A server with the service's own gRPC part, in a process of its own, and callers who ask again at once, each over a
connection of its own. What is told is the server's processor time, as the system counts it. The ways take turns.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from flyweight.cost.hardware import describe_hardware
from flyweight.serving.access import Access
from flyweight.serving.administration import OwnAdministration
from flyweight.serving.answering import Desk
from flyweight.serving.following import Follower
from flyweight.serving.grpc_guard import interceptors
from flyweight.serving.grpc_messages import SERVICE, messages
from flyweight.serving.grpc_service import GrpcServer, GrpcService
from flyweight.serving.repository import Repository
from flyweight.serving.rollout import begun_with
from flyweight.serving.security import Security
from flyweight.serving.settings import Settings, Source
from flyweight.serving.warming import sample_call
from flyweight.serving.watching import start_watching
from flyweight.serving.watching_settings import Watching
from page_section import put

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results" / "serving_grpc_refusals.json", HERE.parent / "docs" / "serving_limits.md"
CANDIDATES, CALLERS, SECONDS, ROUNDS = 500, 8, 1.5, 5
WAYS = {"refused undecoded": "early", "refused once decoded": "late", "answered": "none"}
TICK = os.sysconf("SC_CLK_TCK")
Json = dict[str, Any]


async def serve(bundle: str, way: str) -> None:
    """Serve until the input ends; the queue holds nothing where requests are to be refused."""
    source = Source("ranker", bundle)
    repository = Repository(Settings((source,), threads=1))
    await Follower(repository).begin(begun_with(source), first=True)
    desk = Desk(repository)
    start_watching(desk, Watching())
    (served,) = repository.models["ranker"].versions.values()
    if way != "none":
        served.lane.limits = replace(served.lane.limits, queue=0)
    service = GrpcService(desk, OwnAdministration(repository))
    if way == "late":
        service.early_refusal = lambda data: None  # type: ignore[method-assign]
    server = GrpcServer(service, "127.0.0.1:0", 1 << 24, interceptors(Access(Security()), desk))
    call = sample_call(served.opened.ranker, served.opened.takes, CANDIDATES)
    message = messages()["ModelInferRequest"](model_name="ranker")
    for name, array in {**call.asked, **call.offered}.items():
        datatype = {"int64": "INT64", "int32": "INT32", "float32": "FP32"}[str(array.dtype)]
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    await server.start()
    print(json.dumps({"port": server.port, "message": message.SerializeToString().hex()}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


@asynccontextmanager
async def served(bundle: str, way: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, bytes]]:
    """A server's process, its address, and a request for it."""
    command = (sys.executable, __file__, bundle, WAYS[way])
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 22)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        told = json.loads(await process.stdout.readline())
        yield process, f"127.0.0.1:{told['port']}", bytes.fromhex(told["message"])
    finally:
        process.stdin.close()
        await process.wait()


async def measure(process: asyncio.subprocess.Process, address: str, sent: bytes) -> Json:
    """Requests a second, and microseconds of the server's processor for one."""
    import grpc

    codes: dict[str, int] = {}
    end = time.perf_counter() + SECONDS
    before = processor_of(process.pid)

    async def call(number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options) as channel:
            infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            while time.perf_counter() < end:
                try:
                    await infer(sent)
                    code = "OK"
                except grpc.aio.AioRpcError as error:
                    code = error.code().name
                codes[code] = codes.get(code, 0) + 1

    await asyncio.gather(*(call(number) for number in range(CALLERS)))
    (code,) = codes
    return {"code": code, "requests": codes[code], "us": (processor_of(process.pid) - before) / codes[code] * 1e6}


def processor_of(process: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


async def rounds(bundle: str) -> Json:
    """Every way in turns."""
    found: dict[str, list[Json]] = {way: [] for way in WAYS}
    size = 0
    for _ in range(ROUNDS):
        for way, rows in found.items():
            async with served(bundle, way) as (process, address, sent):
                size = len(sent)
                rows.append(await measure(process, address, sent))
    ways = {
        way: {
            "code": rows[0]["code"],
            "us": median(one["us"] for one in rows),
            "us_of_rounds": [round(one["us"], 1) for one in rows],
            "requests": sum(one["requests"] for one in rows),
        }
        for way, rows in found.items()
    }
    return {"ways": ways, "message_bytes": size}


def render(result: Json) -> str:
    """Return the table of the page."""
    lines = ["| over gRPC | code | processor time of the worker, us | requests |", "|---|---|---|---|"]
    for way, row in result["ways"].items():
        least, most = min(row["us_of_rounds"]), max(row["us_of_rounds"])
        lines.append(f"| {way} | {row['code']} | {row['us']:.0f} ({least:.0f} to {most:.0f}) | {row['requests']:,} |")
    machine = result["hardware"]
    words = f"{CANDIDATES} candidates, {result['message_bytes']:,} bytes, {CALLERS} callers; median of {ROUNDS} rounds."
    return "\n".join([*lines, "", f"{words} {machine['cpu']}, {machine['cores']} cores; {result['beside']}."])


def main() -> None:
    """Measure, and write the numbers and the page's table."""
    if len(sys.argv) == 3:
        asyncio.run(serve(*sys.argv[1:]))
        return
    load_average = Path("/proc/loadavg").read_text().split()[0]
    result = {
        **asyncio.run(rounds(sys.argv[1])),
        "beside": f"other work ran beside it, load average {load_average}",
        "hardware": describe_hardware(),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    put(DOCS, "grpc_refusals", render(result))
    print(render(result))


if __name__ == "__main__":
    main()
