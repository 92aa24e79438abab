"""A real service whose versions change while it answers: each answer has the scores of the version that it names."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from running_service import Service, body_of, request, scores_of, started
from version_bundles import version_bundle

FACTORS = {"1": 1.0, "2": -0.5}
ARRAYS = request(50)
MODEL = "/v1/admin/models/ranker"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("versions")
    return {version: version_bundle(folder / f"ranker{version}.fly", factor) for version, factor in FACTORS.items()}


def admin(service: Service, method: str, path: str, value: Any = None) -> Any:
    """The answer of an admin route, which must be 200."""
    status, answer, _ = service.ask(method, path, b"" if value is None else orjson.dumps(value))
    assert status == 200, answer
    return answer


def version_of(service: Service, user: int = 7, path: str = "/v2/models/ranker/infer") -> str:
    """The version that answers, whose scores are checked."""
    arrays = request(50, user)
    status, answer = service.post(path, body_of(arrays))
    assert status == 200, answer
    check_scores(answer, scores_of(arrays))
    return str(answer["model_version"])


def check_scores(answer: dict[str, Any], first: np.ndarray) -> None:
    """Odd versions are the first bundle and even ones the second."""
    factor = FACTORS["1" if int(answer["model_version"]) % 2 else "2"]
    np.testing.assert_allclose(answer["outputs"][0]["data"], first * factor, rtol=1e-4, atol=1e-6)


def mapped(service: Service, name: str) -> int:
    """How many workers have a file of this bundle in their memory."""
    maps = (Path(f"/proc/{pid}/maps") for pid in service.workers())
    return sum(name in one.read_text() for one in maps if one.exists())


def test_twenty_swaps_under_load_give_no_wrong_score(paths: dict[str, Path]) -> None:
    body, first = orjson.dumps(body_of(ARRAYS)), scores_of(ARRAYS)
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            status, answer, _ = service.ask("POST", "/v2/models/ranker/infer", body)
            try:
                assert status == 200
                check_scores(answer, first)
                seen[answer["model_version"]] += 1
            except AssertionError as error:
                wrong.append(f"{status} {str(answer)[:200]} {error}")

    with started(f"ranker={paths['1']}", "--workers", "2", "--keep", "0") as service:
        clients = [threading.Thread(target=ask) for _ in range(2)]
        for client in clients:
            client.start()
        try:
            for swap in range(20):
                path = paths["1" if swap % 2 else "2"]
                told = admin(service, "POST", f"{MODEL}/versions", {"path": str(path)})
                assert told["answering"] == str(swap + 2)
                assert len(told["versions"]) == 1
        finally:
            over.set()
            for client in clients:
                client.join()
        assert not wrong
        assert sum(seen.values()) > 40
        assert len(seen) > 15
        assert mapped(service, "ranker2.fly") == 0  # the last swap was to the first bundle


def spoilt(path: Path, kind: str, folder: Path) -> Path:
    """A bundle that no one should serve."""
    bad = folder / f"{kind}.fly"
    if kind == "other":
        return version_bundle(bad, 1.0, output="probability")
    shutil.copytree(path, bad)
    file = bad / ("model.onnx.data" if kind == "truncated" else "manifest.json")
    data = file.read_bytes()
    file.write_bytes(data[:-7] if kind == "truncated" else data.replace(b"tiny", b"tinY"))
    return bad


def test_bad_bundles_keep_the_old_version_and_what_is_odd_is_told(paths: dict[str, Path], tmp_path: Path) -> None:
    with started(f"ranker={paths['1']}", "--workers", "2") as service:
        words = {
            "truncated": "model.onnx.data",
            "altered": "manifest.json",
            "other": "gives probability scores of shape .* the version that answers gives logit",
            "absent": "absent.fly",
        }
        for kind, due in words.items():
            path = tmp_path / "absent.fly" if kind == "absent" else spoilt(paths["2"], kind, tmp_path)
            status, answer = service.post(f"{MODEL}/versions", {"path": str(path)})
            assert status == 400
            with pytest.raises(AssertionError, match=f"{due}.* Nothing was changed: version '1' goes on answering"):
                raise AssertionError(answer["error"])
            assert version_of(service) == "1"
            assert mapped(service, path.name) == 0
        odd: list[tuple[str, str, Any, int, str]] = [
            ("POST", "versions", {}, 400, "path is missing"),
            ("POST", "versions", {"path": "ranker.fly"}, 400, "path must be absolute"),
            ("POST", "versions", {"path": 7}, 400, "'path' must be a string; seen '7'"),
            ("POST", "versions", {"path": "/x", "version": "a/b"}, 400, "'a/b' is no name"),
            ("POST", "versions", {"path": "/x\0y"}, 400, "path must be one; seen '/x\\x00y'"),
            ("POST", "versions", {"path": "/" + "x" * 300}, 400, "File name too long"),
            ("POST", "versions", {"path": "/" + "x" * 2**20}, 400, "'path' may have 4,096 letters; seen 1,048,577"),
            ("POST", "versions", {"file": "/x"}, 400, "Key 'file' is not known; it takes path, version, activate"),
            ("POST", "activate", {}, 400, "version is missing"),
            ("POST", "activate", {"version": "9"}, 400, "holds no version '9'"),
            ("POST", "rollback", {}, 400, "no version from before"),
            ("PUT", "canary", {"version": "1", "percent": 5}, 400, "'1' answers, so it cannot be the canary"),
            ("PUT", "canary", {"version": "1", "percent": True}, 400, "'percent' must be a number"),
            ("PUT", "canary", {"version": "1"}, 400, "percent is missing"),
            ("PUT", "shadow", {"version": "9"}, 400, "holds no version '9'"),
            ("GET", "drift", None, 409, "has no shadow"),
            ("DELETE", "versions/1", None, 400, "Version '1' answers"),
        ]
        for method, path_, value, status, due in odd:
            body = b"" if value is None else orjson.dumps(value)
            found, answer, _ = service.ask(method, f"{MODEL}/{path_}", body)
            assert (found, due in answer["error"]) == (status, True), answer
        assert service.ask("GET", "/v1/admin/models/none")[0] == 404


def test_versions_split_and_shadow_survive_a_restart(paths: dict[str, Path], tmp_path: Path) -> None:
    state = tmp_path / "state"
    arguments = (f"ranker={paths['1']}", "--workers", "2", "--state", state)
    with started(*arguments) as service:
        admin(service, "POST", f"{MODEL}/versions", {"path": str(paths["2"]), "activate": False})
        admin(service, "PUT", f"{MODEL}/canary", {"version": "2", "percent": 40, "field": "user_id"})
        service.wait_for("there is '1', '2', and '1' answers, '2' is the canary of 40 % by 'user_id'")
        told = admin(service, "PUT", f"{MODEL}/shadow", {"version": "2", "top": 5})
        shown = service.ask("GET", "/v1/status")[1]["models"][0]
        assert all(shown[key] == told[key] for key in ("canary", "shadow", "before"))
        split = {user: version_of(service, user) for user in range(20)}
        assert set(split.values()) == {"1", "2"}
        assert version_of(service, path="/v2/models/ranker/versions/2/infer") == "2"
        assert {user: version_of(service, user) for user in range(20)} == split  # by whichever of the two workers
        kill_worker(service)
        assert {user: version_of(service, user) for user in range(20)} == split
        time.sleep(0.3)
        drift = admin(service, "GET", f"{MODEL}/drift")
        assert drift["compared"] > 0
        assert drift["kendall_tau"]["max"] < -0.9
    alone = (f"ranker={paths['1']}", "--state", state)
    with started(*alone) as service:
        assert admin(service, "GET", MODEL) == told
        assert {user: version_of(service, user) for user in range(20)} == split
        admin(service, "POST", f"{MODEL}/activate", {"version": "2"})
        assert version_of(service) == "2"
        assert admin(service, "POST", f"{MODEL}/rollback")["answering"] == "1"
        assert mapped(service, "ranker2.fly") == 0
    (state / "rollouts.json").write_bytes(b'{"format": 1')
    with started(*alone) as service:
        assert version_of(service) == "1"
        assert "rollouts.json is damaged" in "".join(service.lines)


def test_a_lost_bundle_is_taken_from_all_workers_or_waited_for(paths: dict[str, Path], tmp_path: Path) -> None:
    first, second = (shutil.copytree(path, tmp_path / path.name) for path in paths.values())
    with started(f"ranker={first}", "--workers", "2") as service:
        admin(service, "POST", f"{MODEL}/versions", {"path": str(second), "activate": False})
        second.rename(tmp_path / "lost")
        os.kill(service.workers()[0], signal.SIGKILL)
        service.wait_for("Version '2' of model 'ranker' is not served any more: .*ranker2.fly: no such folder")
        end = time.monotonic() + 30  # it is said first, then done
        while len(admin(service, "GET", MODEL)["versions"]) > 1:
            assert time.monotonic() < end
        first.rename(tmp_path / "away")
        os.kill(service.workers()[0], signal.SIGKILL)
        service.wait_for("A worker could not start again: .*ranker1.fly: no such folder")
        assert version_of(service) == "1"  # by the other worker
        (tmp_path / "away").rename(first)
        end = time.monotonic() + 30
        while mapped(service, "ranker1.fly") < 2:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_examples_of_the_page_run_as_pasted(paths: dict[str, Path], tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving_versions.md").read_text()
    commands = re.findall(r"^curl .*$", page.replace("\\\n", ""), re.MULTILINE)
    assert len(commands) > 8
    bundles = tmp_path / "bundles"
    bundles.mkdir()
    for version, path in paths.items():
        (bundles / f"ranker-{version}.fly").symlink_to(path)
    with started(f"ranker={paths['1']}") as service:
        for command in commands:
            here = command.replace("localhost:8000", service.http).replace("/bundles", str(bundles))
            found = subprocess.run(here, shell=True, capture_output=True, text=True, timeout=20, check=True)
            assert "error" not in orjson.loads(found.stdout), (command, found.stdout)


def kill_worker(service: Service) -> None:
    """Kill a worker and wait until another one serves in its place."""
    worker = service.workers()[0]
    os.kill(worker, signal.SIGKILL)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(0.1)
        if worker not in service.workers() and mapped(service, "ranker2.fly") == 2:
            return
    raise AssertionError("no other worker came")
