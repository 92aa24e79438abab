"""Requests of real users and candidates as bytes on the wire, with the scores that are due, for the load to send."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

import flyweight as fw
from flyweight.planning.requests import timed_requests
from flyweight.serving.datatypes import datatype_of
from flyweight.zoo.tasks import ZOO

TASK = "complete-journey"
Arrays = dict[str, NDArray[Any]]


def real_requests(sizes: list[int]) -> list[tuple[Arrays, Arrays]]:
    """A user's fields, (1, ...), and candidates', (N, ...), of validation for each N."""
    task = ZOO[TASK]()
    of_user = {name for name, field in task.inputs.items() if field.role == "request"}
    found = []
    for request, rows in zip(timed_requests(task, max(sizes), len(sizes)), sizes, strict=True):
        arrays = {name: value.numpy() for name, value in request.items()}
        asked = {name: np.ascontiguousarray(array[:1]) for name, array in arrays.items() if name in of_user}
        found.append((asked, {name: array[:rows] for name, array in arrays.items() if name not in of_user}))
    return found


def random_sizes(count: int, low: int = 100, high: int = 700) -> list[int]:
    """Numbers of candidates, uniform as in MLPerf's DLRM."""
    return np.random.default_rng(7).integers(low, high + 1, count).tolist()


def body_of(arrays: Arrays) -> tuple[bytes, int]:
    """A binary body of the protocol v2, and how much of it is JSON."""
    entries = [
        {"name": name, "shape": list(array.shape), "datatype": datatype_of(array.dtype),
         "parameters": {"binary_data_size": array.nbytes}}
        for name, array in arrays.items()
    ]  # fmt: skip
    head = orjson.dumps({"inputs": entries, "parameters": {"binary_data_output": True}})
    return head + b"".join(array.tobytes() for array in arrays.values()), len(head)


def wire_of(arrays: Arrays) -> bytes:
    """A whole HTTP request."""
    body, length = body_of(arrays)
    head = f"POST /v2/models/ranker/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Inference-Header-Content-Length: {length}\r\n\r\n".encode() + body


def write_requests(folder: Path, requests: list[tuple[Arrays, Arrays]], bundles: list[Path]) -> None:
    """Write requests, and their scores by each bundle: version 1 is the first, 2 the second, 3 the first again."""
    held: Arrays = {"sizes": np.array([len(next(iter(offered.values()))) for _, offered in requests])}
    for number, (asked, offered) in enumerate(requests):
        held[f"wire{number}"] = np.frombuffer(wire_of({**asked, **offered}), np.uint8)
    for which, bundle in enumerate(bundles):
        with fw.load(bundle) as ranker:
            for number, (asked, offered) in enumerate(requests):
                held[f"scores{which}_{number}"] = ranker.score_many(asked, offered, [0, held["sizes"][number]])
    np.savez(folder / "requests.npz", bundles=len(bundles), **held)
