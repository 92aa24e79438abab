"""Load from a process of its own: one request again and again over some connections, each asking when it was answered.

    python benchmarks/serving_load.py KIND ADDRESS FOLDER --connections 1 --seconds 3

FOLDER holds the request as `serving.py` wrote it. Prints the times as one line of JSON. Most kinds send bytes that were
made beforehand, so that a client's own work is not taken for the service's; the others are Triton's clients.
"""

import argparse
import json
import selectors
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("http-binary", "http-json", "grpc-raw", "triton-http", "triton-grpc")
WARM = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    if given.kind.startswith("http") and given.connections > 1:
        times, seconds = many(given.address, message(given.kind, given.folder), given.connections, given.seconds)
    else:
        times, seconds = alone(CALLERS[given.kind](given.address, given.folder), given.seconds)
    print(json.dumps({"n": len(times), "seconds": seconds, "ms": [round(1e3 * one, 5) for one in times]}))


def alone(call: Callable[[], object], seconds: float) -> tuple[list[float], float]:
    """Closed loop of one caller."""
    for _ in range(WARM):
        call()
    times, begin = [], time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds:
        call()
        times.append(time.perf_counter() - now)
    return times, time.perf_counter() - begin


def message(kind: str, folder: Path) -> bytes:
    """A whole HTTP request."""
    body = (folder / kind).read_bytes()
    head = f"POST /v2/models/ranker/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    if kind == "http-binary":
        head += f"Inference-Header-Content-Length: {(folder / 'header_length').read_text()}\r\n"
    return head.encode() + b"\r\n" + body


def answered(buffer: bytes) -> bool:
    """Whether a buffer holds a whole answer, which must be a good one."""
    head, gap, body = buffer.partition(b"\r\n\r\n")
    if not gap:
        return False
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return len(body) >= int(length.split(b":")[1])


def connected(address: str) -> socket.socket:
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def raw_http(kind: str) -> Callable[[str, Path], Callable[[], object]]:
    def caller(address: str, folder: Path) -> Callable[[], object]:
        connection, sent = connected(address), message(kind, folder)

        def call() -> None:
            connection.sendall(sent)
            buffer = connection.recv(1 << 18)
            while not answered(buffer):
                buffer += connection.recv(1 << 18)

        return call

    return caller


def many(address: str, sent: bytes, connections: int, seconds: float) -> tuple[list[float], float]:
    """Closed loop of several callers in one thread: each sends its next request when its last one is answered."""
    waiting = selectors.DefaultSelector()
    begun: dict[socket.socket, float] = {}
    buffers: dict[socket.socket, bytes] = {}
    for _ in range(connections):
        connection = connected(address)
        waiting.register(connection, selectors.EVENT_READ)
        begun[connection], buffers[connection] = time.perf_counter(), b""
        connection.sendall(sent)
    times: list[float] = []
    begin = time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds:
        for key, _ in waiting.select(1.0):
            connection: Any = key.fileobj
            buffers[connection] += connection.recv(1 << 18)
            if answered(buffers[connection]):
                now = time.perf_counter()
                times.append(now - begun[connection])
                begun[connection], buffers[connection] = now, b""
                connection.sendall(sent)
    return times, time.perf_counter() - begin


def raw_grpc(address: str, folder: Path) -> Callable[[], object]:
    import grpc

    sent = (folder / "grpc-raw").read_bytes()
    channel = grpc.insecure_channel(address)
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    return lambda: call(sent)


def triton(kind: str) -> Callable[[str, Path], Callable[[], object]]:
    def caller(address: str, folder: Path) -> Callable[[], object]:
        import importlib

        client = importlib.import_module(f"tritonclient.{kind}")
        inputs = []
        for name, array in np.load(folder / "request.npz").items():
            one = client.InferInput(name, list(array.shape), {"int64": "INT64", "float32": "FP32"}[str(array.dtype)])
            one.set_data_from_numpy(array)
            inputs.append(one)
        server = client.InferenceServerClient(address)
        return lambda: server.infer("ranker", inputs).as_numpy("scores")

    return caller


CALLERS: dict[str, Callable[[str, Path], Callable[[], object]]] = {
    "http-binary": raw_http("http-binary"),
    "http-json": raw_http("http-json"),
    "grpc-raw": raw_grpc,
    "triton-http": triton("http"),
    "triton-grpc": triton("grpc"),
}


if __name__ == "__main__":
    main()
