"""Work spread over processes and over a Ray cluster of two nodes: the same results as here, whoever is killed."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from cluster_work import dies, dies_once, free_port, late, square, throws, two_nodes
from shared_recovery import KilledOnce, task_and_student
from torch import Tensor, nn

import flyweight as fw
from flyweight.distillation.recover import Recovered, recover
from flyweight.distillation.together import training_together
from flyweight.distillation.training import Training
from flyweight.engines.registry import find_engine
from flyweight.errors import InputError
from flyweight.parallel.cluster.find import find_cluster
from flyweight.parallel.cluster.ray_tasks import RayTasks
from flyweight.parallel.cluster.recovery import recover_together
from flyweight.parallel.cluster.versions import check_same
from flyweight.planning import clock, measuring
from flyweight.planning.artefact import artefact_scores, make_artefact
from flyweight.planning.requests import sample_requests
from flyweight.planning.search import pace, search, workbench
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.study import kept_outcomes
from flyweight.planning.sharded_scores import sharded_scores
from flyweight.tables.coding import Coding
from flyweight.tables.encode_file import encode_file, fingerprint
from flyweight.tables.table_file import open_table
from flyweight.task.processes import Processes
from flyweight.task.runner import Here, Runner, WorkerLostError, in_order
from small_tasks import Ranker, seeded, trained_task


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """The ports of a cluster, its nodes' and its clients'."""
    pytest.importorskip("ray")
    with two_nodes() as found:
        yield found


@pytest.fixture(scope="module")
def cluster(ports: tuple[int, int]) -> Iterator[Runner]:
    """The cluster, joined, once both nodes are there."""
    import ray

    with find_cluster(f"127.0.0.1:{ports[0]}") as runner:
        end = time.monotonic() + 60
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert isinstance(runner, RayTasks)
        yield RayTasks(2, runner.address)


@pytest.fixture(params=["here", "cluster"])
def runner(request: pytest.FixtureRequest) -> Runner:
    """Every way of running."""
    if request.param == "cluster":
        return request.getfixturevalue("cluster")  # type: ignore[no-any-return]
    return Here() if request.param == "here" else Processes(2)


def test_results_come_in_the_order_of_what_was_given(runner: Runner) -> None:
    assert list(in_order(runner, square, range(6))) == [0, 1, 4, 9, 16, 25]
    assert list(in_order(runner, late, iter(range(3)))) == [0, 1, 2]
    assert list(in_order(runner, square, [])) == []


def test_what_a_worker_throws_is_thrown_here(runner: Runner) -> None:
    with pytest.raises(ValueError, match=r"^no work for 7$"):
        list(in_order(runner, throws, [7]))


def test_values_are_read_only_as_there_is_room(runner: Runner) -> None:
    read: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            read.append(len(read))
            yield read[-1]

    with closing(runner.each(square, endless(), most=2)) as each:
        assert next(each)[1].result() in (0, 1)
    assert len(read) <= 2


@pytest.mark.parametrize("runner", ["processes", "cluster"], indirect=True)
def test_a_killed_worker_costs_time_and_nothing_else(runner: Runner, tmp_path: Path) -> None:
    assert list(in_order(runner, partial(dies_once, tmp_path), range(6))) == [0, 1, 4, 9, 16, 25]
    assert int((tmp_path / "killed").read_text()) != os.getpid()


@pytest.mark.parametrize("runner", ["processes", "cluster"], indirect=True)
def test_what_kills_every_worker_is_told_and_the_rest_is_done(runner: Runner) -> None:
    done: list[int] = []
    with closing(runner.each(dies, range(3), most=1, retries=1)) as each:
        for number, outcome in each:
            if number == 1:
                with pytest.raises(WorkerLostError, match=r"(killed|died) 2 times, probably for want of memory"):
                    outcome.result()
            else:
                done.append(outcome.result())
    assert done == [0, 2]


def test_a_table_coded_by_a_cluster_has_the_same_bytes(
    cluster: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "table.npy", np.random.default_rng(0).standard_normal((60_000, 8), dtype=np.float32))
    monkeypatch.setattr("flyweight.tables.encode_file.PART_ROWS", 1 << 14)
    table = open_table(tmp_path / "table.npy")
    here = encode_file(table, tmp_path / "here", Coding(stages=2, bits=3))
    there = encode_file(table, tmp_path / "there", Coding(stages=2, bits=3), runner=cluster)
    assert fingerprint(here.folder) == fingerprint(there.folder)


def test_the_command_line_codes_over_a_client_of_the_cluster(
    cluster: Runner, ports: tuple[int, int], tmp_path: Path
) -> None:
    np.save(tmp_path / "table.npy", np.random.default_rng(0).standard_normal((10_000, 16), dtype=np.float32))
    words = [str(Path(sys.executable).parent / "flyweight"), "encode", "table.npy", "--out", "there"]
    done = subprocess.run([*words, "--cluster", f"ray://127.0.0.1:{ports[1]}"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    here = encode_file(open_table(tmp_path / "table.npy"), tmp_path / "here", Coding())
    assert fingerprint(here.folder) == fingerprint(tmp_path / "there")


def test_a_table_that_workers_do_not_see_is_named(cluster: Runner, tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", np.zeros((100, 8), np.float32))
    table = open_table(tmp_path / "table.npy")

    class Away:
        """Takes the table away as soon as the driver has learned its codewords, as if its disk were not shared."""

        workers, local = 2, False

        def each(self, *given: object, **named: object) -> object:
            (tmp_path / "table.npy").rename(tmp_path / "elsewhere.npy")
            return cluster.each(*given, **named)  # type: ignore[arg-type]

    with pytest.raises(InputError, match=r"The worker on \S+ cannot read .*table.npy \(No such file"):
        encode_file(table, tmp_path / "coded", Coding(), runner=Away())  # type: ignore[arg-type]


def test_a_cluster_that_does_not_answer_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyweight.parallel.cluster.find.ANSWER", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for address in (f"ray://127.0.0.1:{free_port()}", f"127.0.0.1:{silent.getsockname()[1]}"):
            begun = time.monotonic()
            with pytest.raises(InputError, match="No Ray cluster answers at"), find_cluster(address):
                pass
            assert time.monotonic() - begun < 5


def test_names_of_no_cluster_are_refused() -> None:
    for name in ("mars", "ray://", "ray://host", "host:port"):
        with pytest.raises(InputError, match=r"is unknown; use auto, local, ray://host:port"), find_cluster(name):
            pass


def test_local_and_no_cluster_are_processes_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in ("local", "auto"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("flyweight.parallel.cluster.find._connect", lambda ray, address: False)
            patch.setattr("flyweight.parallel.cluster.find._ray", lambda needed: _Idle())
            with find_cluster(name, workers=2) as found:
                assert found == Processes(2)


class _Idle:
    """Ray, of which nothing runs."""

    def is_initialized(self) -> bool:
        return False


def test_a_missing_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'flyweight\[ray\]'"), find_cluster("ray://127.0.0.1:1"):
        pass
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with find_cluster("auto", workers=1) as found:
        assert isinstance(found, Here)


def test_other_versions_on_a_node_are_refused_by_name() -> None:
    import platform

    import ray

    same = {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "Ray": ray.__version__,
        "PyTorch": torch.__version__,
        "Flyweight": fw.__version__,
    }
    check_same("Node 10.0.0.7", same)
    with pytest.raises(InputError, match=r"Node 10.0.0.7 runs other versions.*Ray 2.1.0 there, .* here"):
        check_same("Node 10.0.0.7", {**same, "Ray": "2.1.0"})
    with pytest.raises(InputError, match="Flyweight not installed there"):
        check_same("Node 10.0.0.7", {**same, "Flyweight": ""})


@pytest.fixture(scope="module")
def ranker(one_thread: None) -> fw.Task:
    return trained_task(seeded(Ranker))


def test_scores_in_shards_are_those_of_one_process(
    cluster: Runner, ranker: fw.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyweight.planning.sharded_scores.SHARD_ROWS", 600)
    artefact = make_artefact(ranker.model, sample_requests(ranker), 64, tmp_path)
    for engine in ("onnxruntime", "openvino"):
        prepared = find_engine(engine).prepare(artefact.exported.path, 1)
        alone = artefact_scores(ranker, prepared, "test", artefact.flat_call)
        shards = sharded_scores(ranker, artefact, engine, 1, "test", cluster)
        assert np.array_equal(shards.outputs, alone.outputs)
        assert np.array_equal(shards.targets, alone.targets)
        prepared.close()


TRIED = [Candidate(tables=8.0), Candidate(tables=8.0, units=0.5, epochs=0.5)]


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Propose two candidates, and time for a moment."""
    monkeypatch.setattr(search, "first_candidates", lambda *_: TRIED)
    monkeypatch.setattr(search, "plan_first", lambda *_: [])
    monkeypatch.setattr(measuring, "resident_growth", lambda *_: None)
    monkeypatch.setattr(clock, "SECONDS", 0.2)
    monkeypatch.setattr(workbench, "SECONDS", 0.05)
    monkeypatch.setattr(pace, "SECONDS", 0.05)


@pytest.mark.usefixtures("_short")
def test_a_search_on_a_cluster_finds_what_one_process_finds(cluster: RayTasks, ranker: fw.Task, tmp_path: Path) -> None:
    def found(name: str, cluster: str | None) -> dict[str, object]:
        budget = fw.Budget(max_drop=0.2)
        workers = 2 if cluster else 1
        result = fw.compress(ranker, budget, run=tmp_path / name, max_trials=2, cluster=cluster, workers=workers)
        chosen = str(result.recipe.steps)
        told: dict[str, object] = {chosen: result.drop}
        for one in kept_outcomes(tmp_path / name):
            assert one.measured is not None, one.reason
            told[str(one.candidate)] = (one.measured.bytes, one.measured.table_bytes, one.measured.macs, one.drops)
        return told

    here, there = found("here", None), found("there", cluster.address)
    assert set(map(str, TRIED)) <= set(there)
    assert {name: there[name] for name in here if name in there} == {name: here[name] for name in here if name in there}
    learned = list((tmp_path / "there" / "learning").glob("*.pt"))
    assert len(learned) == 1


SETTINGS = Training(epochs=2, lr=0.01, shards=4)


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    """The weights of a recovery in this process, on several threads."""
    task, student = task_and_student()
    found = recover(task, student, epochs=2, lr=0.01, shards=4)
    assert found.after.epoch > 0  # it learned, and is not the start
    return found.model.state_dict()


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_ranks_recover_the_weights_of_one_process_though_one_is_killed(
    where: str, alone: dict[str, Tensor], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue("cluster").address if where == "cluster" else "local"
    kept, killed = tmp_path / "training", KilledOnce(tmp_path / "killed", 15)
    found = recover_together(*task_and_student(), SETTINGS, cluster=address, after_step=killed, checkpoint=kept)
    assert killed.mark.exists()
    assert kept.exists()
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, alone[name]), name


def test_shards_of_a_step_are_the_step() -> None:
    """The gradient of a mean is the mean of gradients, each by its rows."""
    task, student = task_and_student()
    one, four = (recover(task, student, epochs=0.1, lr=0.01, shards=count) for count in (1, 4))
    for name, value in one.model.named_parameters():
        torch.testing.assert_close(dict(four.model.named_parameters())[name], value, rtol=1e-3, atol=1e-4)


def test_a_step_with_shards_learns_where_compress_says() -> None:
    task, student = task_and_student()
    asked: list[tuple[Training, int]] = []

    def how(task: fw.Task, model: nn.Module, training: Training, *, most: int, **named: object) -> Recovered:
        asked.append((training, most))
        return recover(task, model, epochs=2, lr=0.01)

    with training_together(partial(how, most=2)):
        fw.Distill(epochs=2, lr=0.01, student=student).apply(task)
        assert not asked
        fw.Distill(epochs=2, lr=0.01, student=student, shards=4).apply(task)
    assert [(one.shards, most) for one, most in asked] == [(4, 2)]


def test_ranks_that_cannot_share_shards_are_refused() -> None:
    with pytest.raises(InputError, match="4 shards cannot be shared evenly by 3 ranks; take a divisor of 4"):
        recover_together(*task_and_student(), SETTINGS, ranks=3)
    with pytest.raises(InputError, match="shards must be a whole number from 1 to batch_rows=512"):
        Training(epochs=1, shards=0)
