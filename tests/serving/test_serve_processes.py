"""A real service whose processes end: SIGTERM, a killed worker, a bad bundle, a port that is taken, no PyTorch."""

import errno
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
from rich.console import Console
from running_service import COMMAND, SOURCE, Service, body_of, children_of, request, scores_of, started

from flyweight.cli import serve
from flyweight.serving.settings import Settings, Source

ARRAYS = request(200)
BODY = orjson.dumps(body_of(ARRAYS))
HEAD = b"POST /v2/models/ranker/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)


def ask_once(connection: socket.socket) -> bytes:
    """One request on a connection: the whole answer, or what came of it before the other end closed."""
    connection.sendall(HEAD + BODY)
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < length_of(answer):
        part = connection.recv(1 << 16)
        if not part:
            break
        answer += part
    return answer


def length_of(answer: bytes) -> int:
    lines = answer.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    return int(next(line.split(b":")[1] for line in lines if line.startswith(b"content-length")))


def ask_until(service: Service, over: threading.Event, seen: list[str], keeps: bool) -> None:
    """Ask again and again; note what became of each request that was sent on a connection that was accepted."""
    host, port = service.http.split(":")
    connection: socket.socket | None = None
    while not over.is_set():
        try:
            connection = connection or socket.create_connection((host, int(port)), timeout=10)
        except ConnectionRefusedError:
            return  # nobody accepted it, so nothing can be lost
        try:
            answer = ask_once(connection)
        except OSError as error:
            answer = repr(error).encode()
        seen.append(answer.split(b"\r\n")[0].decode() or "closed without an answer")
        if not keeps or b"connection: close" in answer.lower() or not answer.startswith(b"HTTP/1.1 200"):
            connection.close()
            connection = None
    if connection is not None:
        connection.close()


@pytest.mark.parametrize("keeps", [True, False], ids=["kept connections", "a connection each"])
def test_sigterm_loses_nothing_accepted(hoisted: Path, keeps: bool) -> None:
    over = threading.Event()
    seen: list[list[str]] = [[] for _ in range(6)]
    with started(hoisted, "--workers", "2" if keeps else "1", "--drain", "0.3") as service:
        threads = [threading.Thread(target=ask_until, args=(service, over, one, keeps)) for one in seen]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        service.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(20)
        over.set()
        assert service.process.wait(20) == 0
        service.wait_for("Ended; every request that was accepted is answered")
    answers = [status for one in seen for status in one]
    assert len(answers) > 20
    assert set(answers) == {"HTTP/1.1 200 OK"}


def test_readiness_goes_first(hoisted: Path) -> None:
    with started(hoisted, "--drain", "1.5") as service:
        assert service.ask("GET", "/v2/health/ready")[:2] == (200, {"ready": True})
        service.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 1
        while (answer := service.ask("GET", "/v2/health/ready"))[0] == 200:
            assert time.monotonic() < end
        assert answer[:2] == (503, {"error": "Not ready: the service is ending."})
        assert answer[2]["retry-after"] == "1"
        assert service.ask("POST", "/v2/models/ranker/infer", BODY)[0] == 200
        service.wait_for("SIGTERM: not ready from now on; requests are answered for 1.5 s more")


def test_killed_worker_is_replaced_and_the_other_answers_on(hoisted: Path) -> None:
    with started(hoisted, "--workers", "2") as service:
        first = service.workers()
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        service.wait_for(rf"Worker {first[0]} was killed \(SIGKILL.*\); requests that it was answering are lost")
        for _ in range(20):
            assert service.ask("POST", "/v2/models/ranker/infer", BODY)[0] == 200
        end = time.monotonic() + 20
        while len(service.workers()) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert first[1] in service.workers()
        assert first[0] not in service.workers()


def test_bad_bundle_takes_no_traffic_and_the_old_one_answers_on(hoisted: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(hoisted, tmp_path / "ranker.fly")
    with started(bundle, "--workers", "2") as service:
        data = bytearray((bundle / "model.onnx.data").read_bytes())
        data[100] ^= 1
        (bundle / "new").write_bytes(data)  # a new file in the old one's place, as writers do: the old one stays mapped
        (bundle / "new").replace(bundle / "model.onnx.data")
        status, answer = service.post("/v2/repository/models/ranker/load", {})
        assert status == 500
        assert "model.onnx.data" in answer["error"]
        for _ in range(10):
            status, answer = service.post("/v2/models/ranker/infer", body_of(ARRAYS))
            assert status == 200
            np.testing.assert_allclose(answer["outputs"][0]["data"], scores_of(ARRAYS), rtol=1e-4, atol=1e-6)


def test_busy_service_refuses_at_once_and_takes_the_connection_further(hoisted: Path) -> None:
    with started(hoisted, "--queue", "1", "--max-wait-us", "500000") as service:
        host, port = service.http.split(":")
        first, second = (socket.create_connection((host, int(port)), timeout=10) for _ in range(2))
        with first, second:
            first.sendall(HEAD + BODY)
            time.sleep(0.1)
            begun = time.monotonic()
            answer = ask_once(second)
            assert time.monotonic() - begun < 0.3
            assert answer.startswith(b"HTTP/1.1 429 Too Many Requests")
            assert b"\r\nretry-after: 1\r\nretry-after-ms: " in answer
            assert b"Too busy: 1 request waits already, of at most 1 (--queue). Try again later." in answer
            assert first.recv(1 << 16).startswith(b"HTTP/1.1 200")
            assert ask_once(second).startswith(b"HTTP/1.1 200")


def begun(*arguments: object) -> "subprocess.Popen[str]":
    """A service that has just been started."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "COLUMNS": "400"},
        start_new_session=True,
    )


def refused(*arguments: object) -> str:
    """What a service that does not start says."""
    found = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "400"},
    )
    assert found.returncode == 2
    return " ".join(found.stderr.split())


def test_bad_start_is_one_line(hoisted: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.fly").mkdir()
    assert "empty.fly lacks manifest.json: it is not a bundle" in refused(tmp_path / "empty.fly", "--port", 0)
    assert "Two bundles are called 'ranker'" in refused(hoisted, hoisted)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port} cannot be taken: Address already in use" in refused(hoisted, "--port", port)
    assert "--threads must be 1 or more; seen 0" in refused(hoisted, "--threads", 0)


def test_what_ends_out_of_order_is_told(hoisted: Path) -> None:
    with started(hoisted, "--max-wait-us", "9000000", "--deadline-ms", "20000") as service:
        waits = sent(service)
        service.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        os.kill(service.workers()[0], signal.SIGKILL)
        assert waits.recv(100) == b""
        service.wait_for("Ended; 1 worker did not end in order, what they answered is lost")
        waits.close()


def test_ctrl_c_twice_waits_for_nothing(hoisted: Path) -> None:
    with started(hoisted, "--max-wait-us", "9000000", "--deadline-ms", "20000") as service:
        waits, begun = sent(service), time.monotonic()
        os.killpg(service.process.pid, signal.SIGINT)
        time.sleep(1.2)
        os.killpg(service.process.pid, signal.SIGINT)
        assert service.process.wait(20) == 0
        assert time.monotonic() - begun < 5
        service.wait_for("Told to end for the second time: what is being answered is cut off")
        waits.close()


def test_a_terminal_that_closes_loses_nothing_accepted(hoisted: Path) -> None:
    with started(hoisted, "--max-wait-us", "900000", "--deadline-ms", "20000", "--drain", "0") as service:
        with sent(service) as waits:
            os.killpg(service.process.pid, signal.SIGHUP)
            assert waits.recv(100).startswith(b"HTTP/1.1 200 OK")
        service.wait_for("Ended; every request that was accepted is answered")


def test_a_service_that_no_worker_can_serve_any_more_ends_with_the_reason(hoisted: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(hoisted, tmp_path / "ranker.fly")
    with started(bundle) as service:
        bundle.rename(tmp_path / "away")
        os.kill(service.workers()[0], signal.SIGKILL)
        assert service.process.wait(60) == 2
        service.wait_for("error: No worker is left, and none can start in 5 tries: .*ranker.fly: no such folder")


def test_a_worker_that_dies_at_its_start_is_told_of(hoisted: Path) -> None:
    starts = begun(hoisted, "--port", "0")
    while not children_of(starts.pid):
        time.sleep(0.01)
    os.kill(worker := children_of(starts.pid)[0], signal.SIGKILL)
    said = " ".join(starts.communicate(timeout=60)[0].split())
    assert said.startswith(f"error: Worker {worker} was killed (SIGKILL; has the machine run out of memory?) before it")
    starts = begun(hoisted, "--port", "0")
    while not children_of(starts.pid):
        time.sleep(0.01)
    os.killpg(starts.pid, signal.SIGINT)
    said = starts.communicate(timeout=60)[0]
    assert (said, starts.returncode) == ("Ended; every request that was accepted is answered.\n", 0)


def test_a_file_in_the_folder_of_the_start_stands_for_no_module(hoisted: Path, tmp_path: Path) -> None:
    (tmp_path / "orjson.py").write_text("raise SystemExit('another module')")
    found = subprocess.run(
        [sys.executable, "-P", *COMMAND[1:], str(hoisted), "--port", "0", "--engine", "none"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "400"},
    )
    assert "Engine 'none'" in found.stderr  # by the worker, which was there to say so


def sent(service: Service) -> socket.socket:
    """A connection with a request that the service has taken and not answered yet."""
    host, port = service.http.split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(HEAD + BODY)
    while b"flyweight_waiting_requests{model=\"ranker\",version=\"1\"} 1" not in service.ask("GET", "/metrics")[1]:
        time.sleep(0.02)
    return connection


def test_a_full_disk_behind_what_it_says_ends_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(serve, "out", Console(file=Full()))
    with pytest.raises(OSError, match="No space left"):
        serve.out.print("A line.")
    serve._say_ready(Settings((Source("ranker", "/ranker.fly"),)))


def test_two_services_never_share_a_port(hoisted: Path, service: Service) -> None:
    grpc = service.grpc.rpartition(":")[2]
    told = refused(hoisted, "--port", 0, "--grpc-port", grpc)
    assert f"127.0.0.1:{grpc} cannot be taken: Address already in use" in told
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))  # as another service that is still reading its bundles
        port = other.getsockname()[1]
        starts = begun(hoisted, "--port", port)
        while not children_of(starts.pid):
            time.sleep(0.01)
        other.listen()
        said = " ".join(starts.communicate(timeout=60)[0].split())
    assert starts.returncode == 2
    assert f"127.0.0.1:{port} cannot be listened at: Address already in use. Choose another with --port" in said


def test_worker_imports_no_torch() -> None:
    code = "import sys, flyweight.serving.worker, flyweight.serving.grpc_service; print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)}
    )
    assert found.stdout.strip() == "False", found.stderr
