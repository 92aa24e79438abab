"""`flyweight serve` of a bundle whose rows lie with servers: the same scores, and what is said while one is away."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import orjson
import pytest
from running_service import Service, body_of, request, scores_of, started
from shard_servers import ServerProcess, shards_of
from typer.testing import CliRunner

import flyweight as fw
from flyweight.bundle.shards.shard import shard
from flyweight.cli.main import app
from flyweight.errors import InputError
from flyweight.serving.beginning import begin_rollouts, digest_of
from flyweight.serving.degraded import degraded_rows, marked_degraded
from flyweight.serving.grpc_messages import SERVICE, messages
from flyweight.serving.rollout import begun_with
from flyweight.serving.settings import Source
from flyweight.serving.shard_policy import ShardPolicy, shards_by_model

INFER = "/v2/models/ranker/infer"
ARRAYS = request(40)


@pytest.fixture(scope="module")
def split(hoisted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny ranker with all its tables in two shards."""
    return shard(hoisted, tmp_path_factory.mktemp("split") / "ranker.fly", shards=2, over=1).path


@pytest.fixture
def servers(split: Path) -> Iterator[list[ServerProcess]]:
    """A server of each shard."""
    running = [ServerProcess(folder) for folder in shards_of(split, 2)]
    yield running
    for one in running:
        one.kill()


def options(servers: list[ServerProcess]) -> list[str]:
    return [word for one in servers for word in ("--shard", one.address)]


def wait_until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def metric(service: Service, name: str) -> float:
    """The sum over a metric's labels."""
    text = service.ask("GET", "/metrics")[1].decode()
    return sum(map(float, re.findall(rf"^{name}(?:{{.*}})? ([\d.e+]+)$", text, re.MULTILINE)))


def test_a_shard_that_is_killed_refuses_in_every_worker_until_it_is_back(
    split: Path, servers: list[ServerProcess]
) -> None:
    with started(split, *options(servers), "--workers", 2, "--shard-timeout", 2) as service:
        status, told = service.post(INFER, body_of(ARRAYS))
        assert (status, "parameters" in told) == (200, False)
        np.testing.assert_allclose(told["outputs"][0]["data"], scores_of(ARRAYS), rtol=1e-5, atol=1e-6)
        gone = servers.pop()
        gone.kill()
        for _ in range(8):  # connections go to either worker
            status, told, headers = service.ask("POST", INFER, orjson.dumps(body_of(ARRAYS)))
            assert (status, headers["retry-after"]) == (503, "1")
            words = rf"Shard 1 of 2 at {gone.address}: .*serve-shard shard-1 --port {gone.port}"
            assert re.search(words, told["error"])
        assert service.ask("GET", "/v2/health/ready")[0] == 200  # no other worker could do better
        counted = b'flyweight_errors_total{kind="away",model="ranker",version="1"} 8.0'
        assert counted in service.ask("GET", "/metrics")[1]
        assert metric(service, "flyweight_shard_away") >= 1
        service.wait_for(rf"Shard 1 of 2 at {gone.address} is away")
        servers.append(ServerProcess(split / "shard-1", gone.port))
        wait_until(lambda: metric(service, "flyweight_shard_away") == 0)
        service.wait_for(rf"Shard 1 of 2 at {gone.address} answers again, after \d+\.\d s")
        for _ in range(4):
            status, told = service.post(INFER, body_of(ARRAYS))
            assert status == 200
            np.testing.assert_allclose(told["outputs"][0]["data"], scores_of(ARRAYS), rtol=1e-5, atol=1e-6)
        _check_loading(service, split, [one.address for one in servers])


def _check_loading(service: Service, split: Path, addresses: list[str]) -> None:
    """A version loaded beside is told its servers; other servers for a version that is held are refused."""
    again = {"path": str(split), "shards": addresses}
    status, told = service.post("/v1/admin/models/second/versions", again)
    assert (status, told["versions"][0]["shards"]) == (200, addresses)
    assert service.post("/v2/models/second/infer", body_of(ARRAYS))[0] == 200
    status, told = service.post("/v1/admin/models/ranker/versions", {**again, "shards": addresses[::-1]})
    assert (status, "serves shard 1 of 2, and shard 0 is due there" in told["error"]) == (400, True)
    status, told = service.post("/v1/admin/models/ranker/versions", {**again, "shards": "h:1"})
    assert (status, told["error"]) == (400, "'shards' must be a list; seen 'h:1'.")


def test_answers_with_stand_ins_say_so_in_every_protocol_also_from_a_new_worker(
    split: Path, servers: list[ServerProcess]
) -> None:
    with started(split, *options(servers), "--missing", "degrade", "--grpc-port", 0) as service:
        assert "parameters" not in service.post(INFER, body_of(ARRAYS))[1]
        addresses = [one.address for one in servers]
        servers.pop().kill()
        status, told = service.post(INFER, body_of(ARRAYS))
        assert status == 200
        with pytest.warns(UserWarning, match="stood in for until it answers"):
            ranker = fw.load(split, shards=addresses, missing="degrade")
        with ranker:
            due = ranker.score({"user_id": 7}, {name: ARRAYS[name] for name in ("item_id", "price")})
            rows = ranker.last_degraded
        assert told["parameters"] == {"degraded_rows": rows}
        assert rows > 0
        np.testing.assert_allclose(told["outputs"][0]["data"], due, rtol=1e-5, atol=1e-6)
        ranking = {"request": {"user_id": 7}, "candidates": [{"item_id": 3, "price": 0.5}]}
        assert service.post("/v1/rank", ranking)[1]["degraded_rows"] > 0
        assert _by_grpc(service).parameters["degraded_rows"].int64_param == rows
        assert metric(service, "flyweight_degraded_total") == 3
        (worker,) = service.workers()
        os.kill(worker, signal.SIGKILL)
        service.wait_for("is served without a comparison with its stored scores, .*shard 1: nothing listens there")
        wait_until(lambda: worker not in service.workers() and service.ask("GET", "/v2/health/live")[0] == 200)
        assert service.post(INFER, body_of(ARRAYS))[1]["parameters"] == {"degraded_rows": rows}
        wait_until(lambda: metric(service, "flyweight_shard_away") == 1)


def _by_grpc(service: Service) -> object:
    known = messages()
    asked = known["ModelInferRequest"](model_name="ranker")
    for entry in body_of(ARRAYS)["inputs"]:
        asked.inputs.add(name=entry["name"], datatype=entry["datatype"], shape=entry["shape"])
        asked.raw_input_contents.append(ARRAYS[entry["name"]].tobytes())
    with grpc.insecure_channel(service.grpc) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=known["ModelInferRequest"].SerializeToString,
            response_deserializer=known["ModelInferResponse"].FromString,
        )
        return call(asked, timeout=20)


def test_servers_are_refused_where_it_is_open_whose_they_are(split: Path) -> None:
    said = CliRunner().invoke(app, ["serve", str(split), "--missing", "maybe"])
    assert isinstance(said.exception, InputError)
    assert "--missing must be refuse or degrade; seen 'maybe'" in str(said.exception)
    assert shards_by_model(["b=h:1", "a=h:2", "b=h:3"], ["a", "b"]) == {"b": ("h:1", "h:3"), "a": ("h:2",)}
    with pytest.raises(InputError, match=r"--shard h:1 is of one of 2 models; say of which: a=h:1, for one"):
        shards_by_model(["h:1"], ["a", "b"])
    with pytest.raises(InputError, match=r"is of model 'c', which is not served; there is a"):
        shards_by_model(["c=h:1"], ["a"])
    with pytest.raises(InputError, match="--shard-timeout is in seconds, above 0; seen 0"):
        ShardPolicy(timeout=0)


def test_a_bundle_of_shards_without_their_addresses_is_refused_with_the_option(split: Path) -> None:
    from flyweight.serving.served import open_bundle
    from flyweight.serving.settings import Settings, sources_of

    settings = Settings(sources_of([str(split)]))
    with pytest.raises(InputError, match=r"has 2 shards: give their addresses in order.*--shard HOST:PORT"):
        open_bundle(settings.sources[0], settings)


def test_servers_that_moved_are_those_of_the_command_line_after_a_restart(split: Path) -> None:
    kept = begun_with(Source("ranker", str(split), digest=digest_of(str(split)) or "", shards=("old:1", "old:2")))
    given = Source("ranker", str(split), shards=("new:1", "new:2"))
    begun = begin_rollouts([given], {"ranker": kept})["ranker"]
    assert [one.shards for one in begun.held] == [("new:1", "new:2")]


def test_parts_of_joined_scores_know_of_stand_ins() -> None:
    one, other = np.split(marked_degraded(np.arange(5.0), 3), [2])
    assert (degraded_rows(one), degraded_rows(other), degraded_rows(np.arange(5.0))) == (3, 3, 0)
