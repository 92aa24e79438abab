"""A full queue over gRPC: refused by a message's first bytes, with code, words and a hint when to come again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from running_service import body_of, request, scores_of

from flyweight.serving.access import Access
from flyweight.serving.administration import OwnAdministration
from flyweight.serving.answering import Desk
from flyweight.serving.following import Follower
from flyweight.serving.grpc_guard import interceptors
from flyweight.serving.grpc_messages import SERVICE, messages
from flyweight.serving.grpc_service import GrpcServer, GrpcService
from flyweight.serving.grpc_target import read_target
from flyweight.serving.repository import Repository
from flyweight.serving.rollout import begun_with
from flyweight.serving.security import Security
from flyweight.serving.settings import Settings, Source
from flyweight.serving.watching import start_watching
from flyweight.serving.watching_settings import Watching

#: Begins as a request of the ranker does, and is none.
GARBAGE = b"\x0a\x06ranker" + b"\xff" * 40


def message(**more: Any) -> bytes:
    """A request as a client's library writes it."""
    arrays = request(20)
    asked = messages()["ModelInferRequest"](model_name="ranker", **more)
    for entry in body_of(arrays)["inputs"]:
        asked.inputs.add(name=entry["name"], datatype=entry["datatype"], shape=entry["shape"])
        asked.raw_input_contents.append(arrays[entry["name"]].tobytes())
    return bytes(asked.SerializeToString())


@asynccontextmanager
async def serving(bundle: Path, log: float) -> AsyncIterator[tuple[Any, Any, Any]]:
    """A caller, the lane, and what gives the counts."""
    repository = Repository(Settings((Source("ranker", str(bundle)),)))
    await Follower(repository).begin(begun_with(repository.settings.sources[0]), first=True)
    desk = Desk(repository)
    watchers = start_watching(desk, Watching(access_log=log))
    service = GrpcService(desk, OwnAdministration(repository))
    server = GrpcServer(service, "127.0.0.1:0", 1 << 20, interceptors(Access(Security()), desk))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            (served,) = repository.models["ranker"].versions.values()
            yield call, served.lane, watchers.snapshot
    finally:
        await server.stop()


async def refused(call: Any, data: bytes) -> tuple[str, str, dict[str, str]]:
    """The code, the words and the trailing metadata of a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await call(data)
    return told.value.code().name, told.value.details(), dict(told.value.trailing_metadata())


@pytest.mark.parametrize("log", [0.0, 1.0])
def test_a_full_queue_refuses_what_it_has_not_decoded(hoisted: Path, log: float) -> None:
    async def check() -> None:
        async with serving(hoisted, log) as (call, lane, snapshot):
            roomy, lane.limits = lane.limits, replace(lane.limits, queue=0)
            for data in (GARBAGE, message(), message(model_version="1")):
                code, words, trailing = await refused(call, data)
                assert code == "RESOURCE_EXHAUSTED"
                assert words == "Too busy: 0 requests wait already, of at most 0 (--queue). Try again later."
                assert int(trailing["grpc-retry-pushback-ms"]) >= 1
            counted = (await snapshot())["lasting"]["ranker"].values()
            assert sum(one["errors"].get("busy", 0) for one in counted) == 3
            assert sum(one["requests"].get("grpc", 0) for one in counted) == 3
            code, words, _ = await refused(call, message(model_version="7"))  # no such version: no queue to be full
            assert (code, "has no version '7' here" in words) == ("NOT_FOUND", True)
            lane.limits = roomy
            answer = messages()["ModelInferResponse"].FromString(await call(message()))
            scores = np.frombuffer(answer.raw_output_contents[0], np.float32)
            np.testing.assert_allclose(scores, scores_of(request(20)), rtol=1e-5, atol=1e-6)

    asyncio.run(check())


def test_bytes_that_are_no_message_are_the_callers_fault(hoisted: Path) -> None:
    async def check() -> None:
        async with serving(hoisted, 0.0) as (call, _, _):
            code, words, _ = await refused(call, GARBAGE)
            assert code == "INVALID_ARGUMENT"
            assert words == "The 48 bytes of the call are no ModelInferRequest of the protocol."

    asyncio.run(check())


@pytest.mark.parametrize(
    ("data", "target"),
    [
        (message(), ("ranker", None)),
        (message(model_version="v2", id="order-7"), ("ranker", "v2")),
        (b"", None),
        (b"\x0a", None),
        (b"\x0a\x00", None),
        (b"\x0a\x06rank", None),
        (b"\x0a\x03\xff\xfe\xfd", None),
        (b"\x12\x012\x0a\x06ranker", None),
        (b"\x0a\x80\x01" + b"r" * 128, None),
    ],
)
def test_the_model_is_told_from_the_first_bytes_or_not_at_all(data: bytes, target: object) -> None:
    assert read_target(data) == target
