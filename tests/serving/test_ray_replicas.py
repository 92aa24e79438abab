"""`flyweight serve --ray`: the same answers from replicas on a Ray cluster, also while one is killed."""

import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import numpy as np
import orjson
import pytest
from ray_node import Node, descendants, nodes, title, wait_for
from running_service import Service, body_of, request, scores_of, started
from typer.testing import CliRunner

from flyweight.cli.main import app
from flyweight.errors import BundleError, InputError
from flyweight.serving.replicas import deployment
from flyweight.serving.replicas.deployment import in_words
from flyweight.serving.replicas.node_check import check_told, hashes_of, sent_as_it_is
from flyweight.serving.replicas.ray_cluster import join_cluster
from flyweight.serving.replicas.run import serve_on_ray
from flyweight.serving.replicas.scaling import Scaling
from flyweight.serving.settings import Settings, sources_of

INFER = "/v2/models/ranker/infer"


@dataclass
class Cluster:
    """Its nodes, the head first."""

    nodes: list[Node]

    @property
    def address(self) -> str:
        """Where others join it."""
        return self.nodes[0].address

    @property
    def secret(self) -> dict[str, str]:
        """What lets them in."""
        return self.nodes[0].secret

    def replicas(self) -> set[int]:
        """Return the numbers of the processes that serve, on any node."""
        return set().union(*(node.replicas() for node in self.nodes))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of two nodes."""
    pytest.importorskip("ray.serve")
    with nodes(2, 2) as running:
        yield Cluster(running)


@pytest.fixture(scope="module")
def replicated(cluster: Cluster, hoisted: Path) -> Iterator[Service]:
    """A service of two replicas in it."""
    with started(hoisted, *_replicas(cluster), seconds=90, **cluster.secret) as running:
        yield running
    assert not cluster.replicas()  # what the service made has ended with it


def _replicas(cluster: Cluster) -> list[object]:
    return ["--ray-address", cluster.address, "--min-replicas", 2, "--replica-cores", 0.5]


@dataclass
class Caller:
    """Sends requests one after another and each that fails again, until told to end."""

    service: Service
    answered: int = 0
    wrong: int = 0
    failures: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    pause: float = 0.0
    told: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send."""
        number = 0
        while not self.told.is_set():
            number += 1
            self.told.wait(self.pause)
            arrays = request(20, seed=number)
            for _ in range(40):
                try:
                    status, told, _ = self.service.ask("POST", INFER, orjson.dumps(body_of(arrays)))
                except (OSError, HTTPException) as error:
                    status, told = 0, type(error).__name__
                if status == 200:
                    self.answered += 1
                    self.wrong += not np.allclose(told["outputs"][0]["data"], scores_of(arrays), atol=1e-5)
                    break
                self.failures.append(f"{status} {told}"[:120])
                time.sleep(0.1)
            else:
                self.lost.append(number)


def test_replicas_answer_as_the_service_without_ray_does(replicated: Service) -> None:
    arrays = request(50)
    status, told = replicated.post(INFER, body_of(arrays))
    assert status == 200
    np.testing.assert_allclose(told["outputs"][0]["data"], scores_of(arrays), atol=1e-5)
    candidates = [{"item_id": 3, "price": 0.5, "id": "a"}, {"item_id": 5, "price": 0.1, "id": "b"}]
    status, told = replicated.post("/v1/rank", {"request": {"user_id": 7}, "candidates": candidates})
    due = scores_of({"user_id": np.array([7]), "item_id": np.array([3, 5]), "price": np.array([0.5, 0.1], np.float32)})
    ranked = {one["id"]: one["score"] for one in told["ranked"]}
    assert ranked == pytest.approx(dict(zip("ab", due, strict=True)), abs=1e-5)
    assert replicated.ask("GET", "/v2/health/ready")[:2] == (200, {"ready": True})
    assert replicated.ask("GET", "/v2/models/ranker")[1]["versions"] == ["1"]
    assert replicated.post("/v2/repository/index", {})[1][0]["state"] == "READY"
    status, told = replicated.post(INFER, {"inputs": []})
    assert status == 400
    assert "user_id" in told["error"] or "input" in told["error"]


def test_metrics_are_the_sum_over_replicas_whichever_is_asked(replicated: Service) -> None:
    before = counted(replicated)
    for number in range(30):
        assert replicated.post(INFER, body_of(request(5, seed=number)))[0] == 200
    wait_for(lambda: counted(replicated) == before + 30, 10)
    assert {counted(replicated) for _ in range(8)} == {before + 30}  # the proxies ask one replica or the other
    of_nodes = re.findall(r'^flyweight_replicas{node="(.*)"} (.*)$', _metrics(replicated), re.MULTILINE)
    assert [count for _, count in of_nodes] == ["1.0", "1.0"]
    assert "127.0.0.2" in dict(of_nodes)  # Ray calls the head by another address of this machine than it was given
    status = replicated.ask("GET", "/v1/status")[1]
    model = status["models"][0]
    assert (status["workers"], model["versions"][0]["answered"] + model["refused"]) == (2, before + 30)


def counted(service: Service) -> int:
    """Requests that were answered or refused, as the metrics say."""
    return sum(map(int, re.findall(r"^flyweight_requests_total{.*} (\d+)\.0$", _metrics(service), re.MULTILINE)))


def _metrics(service: Service) -> str:
    status, text, _ = service.ask("GET", "/metrics")
    assert status == 200, text
    return str(text.decode())


def test_changes_of_what_is_served_are_refused_with_the_way(replicated: Service) -> None:
    models = "/v2/repository/models/ranker"
    for path in (f"{models}/load", f"{models}/unload", "/v1/admin/models/ranker/rollback"):
        status, told = replicated.post(path, {})
        assert status == 409
        assert "Deploy anew with the bundles that are wanted (`flyweight serve --ray-address" in told["error"]


def test_a_replica_killed_under_load_gives_no_wrong_answer_and_comes_back(
    cluster: Cluster, replicated: Service
) -> None:
    before = cluster.replicas()
    assert [len(node.replicas()) for node in cluster.nodes] == [1, 1]
    caller = Caller(replicated)
    sending = threading.Thread(target=caller.run)
    sending.start()
    try:
        wait_for(lambda: caller.answered > 20, 20)
        told = counted(replicated)
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: len(cluster.replicas() - before) == 1 and killed not in cluster.replicas(), 30)
        answered = caller.answered
        wait_for(lambda: caller.answered > answered + 20, 20)
    finally:
        caller.told.set()
        sending.join()
    sums = [counted(replicated) for _ in range(6)]
    assert sums == sorted(sums)  # what the killed replica told stays
    assert sums[0] >= told
    print(f"{caller.answered} answered; failed before that: {caller.failures}")
    assert caller.wrong == 0
    assert caller.lost == []
    assert [one for one in caller.failures if one[0] not in "05"] == []  # connection errors and 5xx


@pytest.mark.slow
def test_another_deployment_takes_its_place_without_a_failed_request(
    cluster: Cluster, replicated: Service, hoisted: Path
) -> None:
    port = replicated.http.rpartition(":")[2]
    caller = Caller(replicated)
    sending = threading.Thread(target=caller.run)
    sending.start()
    try:
        words = [hoisted, f"second={hoisted}", *_replicas(cluster), "--port", port]
        with started(*words, fixed=True, seconds=120, **cluster.secret) as later:
            replicated.wait_for("Another deployment has taken this one's place")
            assert later.post("/v2/models/second/infer", body_of(request(5)))[0] == 200
            caller.told.set()
            sending.join()
    finally:
        caller.told.set()
    assert (caller.wrong, caller.lost, caller.failures) == (0, [], [])


@pytest.mark.slow
def test_load_makes_another_replica(cluster: Cluster, replicated: Service, hoisted: Path) -> None:
    scaling = ["--max-replicas", 2, "--target-ongoing", 0.05, "--replica-cores", 0.5]
    port = replicated.http.rpartition(":")[2]
    words = [hoisted, "--ray-address", cluster.address, *scaling, "--port", port]
    with started(*words, fixed=True, seconds=120, **cluster.secret) as later:
        wait_for(lambda: len(cluster.replicas()) == 1, 60)
        caller = Caller(later)
        sending = threading.Thread(target=caller.run)
        sending.start()
        try:
            wait_for(lambda: len(cluster.replicas()) == 2, 90)
        finally:
            caller.told.set()
            sending.join()
        assert (caller.wrong, caller.lost) == (0, [])


@pytest.mark.slow
def test_a_node_killed_under_load_loses_nothing_and_replicas_follow_the_load_up_and_down(hoisted: Path) -> None:
    scaling = ["--max-replicas", 4, "--target-ongoing", 1, "--scale-up-after", 2, "--scale-down-after", 5]
    with nodes(2, 2) as (head, other):
        words = [hoisted, "--ray-address", head.address, "--replica-cores", 0.5, *scaling]
        with started(*words, seconds=120, **head.secret) as service, sending(service, 6) as callers:
            answered, begun = 0, time.monotonic()

            def wait(there: Callable[[], bool], what: str) -> None:
                nonlocal answered, begun
                wait_for(there, 120)
                answered, failed = sum(one.answered for one in callers), sum(len(one.failures) for one in callers)
                seen = sorted({why for one in callers for why in one.failures})
                after = time.monotonic() - begun
                print(f"{what}: {after:.1f} s; {answered:,} answered, {failed} failed at first {seen}")
                begun = time.monotonic()

            wait(lambda: len(head.replicas()) + len(other.replicas()) == 4, "up to 4 replicas")
            assert head.replicas()
            assert other.replicas()
            wait(lambda: listening(service) == 2, "a second proxy")  # the kernel deals connections out to both
            wait_for(lambda: sum(one.answered for one in callers) > answered + 300, 60)
            other.kill()
            wait(lambda: len(head.replicas()) == 4, "a node was killed, all 4 on the other")
            for caller in callers[1:]:
                caller.told.set()
            callers[0].pause = 0.5  # what is left of the load
            wait(lambda: len(head.replicas()) == 1, "down to 1")
            wait(lambda: sum(one.answered for one in callers) > answered + 3, "still answering")
    assert [(one.wrong, one.lost) for one in callers] == [(0, [])] * 6
    told = [one for caller in callers for one in caller.failures if one[0] not in "05"]
    assert [one for one in told if "available routes" not in one] == []  # Ray's proxy before it knows its routes: 404


def listening(service: Service) -> int:
    """How many sockets listen at a service's port; the nodes of these tests are one machine, and share it."""
    port = f":{int(service.http.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == "0A" for row in rows)  # 0A: listens


@contextmanager
def sending(service: Service, count: int) -> Iterator[list[Caller]]:
    """Let callers send at once until the block ends."""
    callers = [Caller(service) for _ in range(count)]
    threads = [threading.Thread(target=one.run) for one in callers]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        for caller, thread in zip(callers, threads, strict=True):
            caller.told.set()
            thread.join()


@pytest.mark.slow
def test_without_an_address_a_cluster_begins_and_ends_with_the_service(hoisted: Path) -> None:
    with started(hoisted, "--ray", seconds=120) as service:
        assert service.post(INFER, body_of(request(5)))[0] == 200
        began = descendants(service.process.pid)
        assert any("raylet" in title(pid) for pid in began)
        # Ray's process of this name runs in any case; told so, it serves no page
        assert all("--disable-frontend" in title(pid) for pid in began if "dashboard/dashboard.py" in title(pid))
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("Ended.", 60)
        assert service.process.wait(30) == 0
    wait_for(lambda: not any(title(pid) for pid in began), 10)


def test_a_bad_bundle_is_told_before_any_cluster_is_asked(hoisted: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(hoisted, tmp_path / "bad.fly"))
    (bad / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        serve_on_ray(Settings(sources_of([str(bad)])), Scaling(), "127.0.0.1:1", print, detach=False)


def test_no_cluster_is_told_with_its_address_and_in_time() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        begun = time.monotonic()
        with pytest.raises(InputError, match=f"No Ray cluster answers at {address} within 5 s"), join_cluster(address):
            pass
    assert time.monotonic() - begun < 7
    with pytest.raises(InputError, match="ray job submit"), join_cluster("ray://127.0.0.1:10001"):
        pass
    with pytest.raises(InputError, match="'mars' is unknown; use auto, or HOST:PORT"), join_cluster("mars"):
        pass


def test_a_missing_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'flyweight\[ray\]'"), join_cluster(None):
        pass


def test_a_node_that_lacks_a_bundle_or_has_another_is_named(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    file.write_text("{}")
    due = hashes_of([str(file)])
    look = sent_as_it_is()
    check_told("10.0.0.7", look(list(due), ("orjson",)), due)
    with pytest.raises(InputError, match=r"Node 10.0.0.7 lacks no_such_package"):
        check_told("10.0.0.7", look(list(due), ("no_such_package",)), due)
    file.write_text("{ }")
    with pytest.raises(InputError, match=r"Node 10.0.0.7 has another file at .*manifest.json: hash"):
        check_told("10.0.0.7", look(list(due), ()), due)
    file.unlink()
    told = look(list(due), ())
    with pytest.raises(InputError, match=r"Node 10.0.0.7 cannot read .*No such file.*shared disk"):
        check_told("10.0.0.7", told, due)
    with pytest.raises(InputError, match=r"Node 10.0.0.7 has no Flyweight; here it is"):
        check_told("10.0.0.7", {**told, "version": ""}, due)


@pytest.mark.parametrize(("replacing", "left"), [(False, []), (True, ["the replicas"])])
def test_replicas_that_nobody_reaches_are_not_left_behind(
    monkeypatch: pytest.MonkeyPatch, replacing: bool, left: list[str]
) -> None:
    there = ["the replicas"]
    monkeypatch.setattr(deployment, "state", lambda: ("RUNNING", ""))
    monkeypatch.setattr(deployment, "take_down", lambda drain_seconds: there.clear())
    monkeypatch.setattr(deployment, "PORT_SECONDS", 0.0)
    settings = Settings(sources_of(["x.fly"]), port=1)
    with pytest.raises(InputError, match=r"Replicas run, and nothing answers at 127\.0\.0\.1:1"):
        deployment.wait_until_answering(settings, 0.0, threading.Event(), replacing=replacing)
    assert there == left


@pytest.mark.parametrize("option", [["--min-replicas", "2"], ["--max-replicas", "2"], ["--detach"]])
def test_options_of_replicas_without_ray_are_refused(option: list[str]) -> None:
    with pytest.raises(InputError, match="are of replicas on Ray: add --ray, or give --workers"):
        CliRunner().invoke(app, ["serve", "x.fly", *option], catch_exceptions=False)
    with pytest.raises(InputError, match=r"--max-replicas must be 1 .* seen 0"):
        CliRunner().invoke(app, ["serve", "x.fly", "--ray", "--max-replicas", "0"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"least": 0}, "--min-replicas must be 1 or more; seen 0"),
        ({"least": 3, "most": 2}, "--max-replicas must be 3"),
        ({"ongoing": 0.0}, "--target-ongoing must be a number above 0; seen 0"),
        ({"down_seconds": -1.0}, "--scale-down-after is in seconds, 0 or more; seen -1"),
        ({"cores": 1.5}, "--replica-cores must be a whole number, or a part of one core"),
    ],
)
def test_impossible_scaling_is_refused(given: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Scaling(**given)  # type: ignore[arg-type]


def test_what_a_replica_raised_is_found_in_rays_words() -> None:
    said = "Replica failed 3 times.\nTraceback:\n  line\nflyweight.errors.EngineError: Node 10.0.0.7: no disk.\n"
    assert in_words(said) == "Node 10.0.0.7: no disk."
    assert in_words("no\n  room") == "no room"


def test_options_that_replicas_have_not_are_refused(tmp_path: Path) -> None:
    sources = sources_of([str(tmp_path / "x.fly")])
    for settings, words in (
        (Settings(sources, grpc_port=0), "over HTTP only"),
        (Settings(sources, workers=2), "--max-replicas"),
        (Settings(sources, state=str(tmp_path)), "leave it out"),
    ):
        with pytest.raises(InputError, match=words):
            serve_on_ray(settings, Scaling(), None, print, detach=False)
    with pytest.raises(InputError, match=r"need 9999; this machine has"):
        serve_on_ray(Settings(sources), Scaling(9999, 9999), None, print, detach=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port} cannot be taken: Address already in use"):
            serve_on_ray(Settings(sources, port=port), Scaling(), None, print, detach=False)
    with pytest.raises(InputError, match="--detach needs a cluster that stays"):
        serve_on_ray(Settings(sources), Scaling(), None, print, detach=True)
