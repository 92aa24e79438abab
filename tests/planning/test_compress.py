"""A trained ranker through `compress`: the result, its bundle, and what they say of each other."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import flyweight as fw
from flyweight.bundle.manifest import DATA, MANIFEST, MODEL, SAMPLES
from flyweight.planning.result import Result
from flyweight.quality.auc import auc
from flyweight.task.measurement import Latency, Measurement
from small_tasks import FIELDS, ITEMS, USERS, Ranker, seeded, trained_task, world

STEPS = [fw.EncodeTables(ratio=8)]
STATE: dict[str, Any] = {}
SKUS = [f"sku-{number}" for number in range(ITEMS)]


@pytest.fixture(scope="module")
def task() -> fw.Task:
    items = fw.Field("candidate", rows=ITEMS, vocabulary=SKUS)
    task = trained_task(seeded(Ranker), name="tiny ranker", inputs={**FIELDS, "item_id": items})
    STATE["weights"] = {name: value.clone() for name, value in task.model.state_dict().items()}
    return task


@pytest.fixture(scope="module")
def result(task: fw.Task) -> Result:
    # Rewritten whatever the clock says: other tests run on the same cores.
    return fw.compress(task, fw.Budget(max_drop=0.5, max_bytes=10), steps=STEPS, rewrite=True)


@pytest.fixture(scope="module")
def bundle(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.save(tmp_path_factory.mktemp("saved") / "ranker.fly")


def scored(ranker: Any, user: int, items: NDArray[Any], prices: NDArray[Any]) -> NDArray[Any]:
    return ranker.score(request={"user_id": user}, candidates={"item_id": items, "price": prices})


def test_bundle_is_asked_with_the_raw_values_of_its_fields(bundle: Path) -> None:
    items, prices = np.array([3, ITEMS - 1, 0]), np.array([0.1, 0.5, 0.9], np.float32)
    with fw.load(bundle) as ranker:
        by_id = scored(ranker, 5, items, prices)
        np.testing.assert_array_equal(scored(ranker, 5, np.array(SKUS)[items], prices), by_id)
    assert len(set(by_id.tolist())) == 3


def test_tables_are_smaller_and_so_is_the_model(result: Result, task: fw.Task) -> None:
    assert result.before.table_bytes == 4 * 8 * (USERS + ITEMS)
    assert result.after.table_bytes * 8 <= result.before.table_bytes
    # What is saved in tables is saved on disk, but for the operators that read codes.
    assert result.after.bytes < result.before.bytes
    assert result.before.table_bytes < result.before.bytes
    assert result.before.macs > 0


def test_quality_is_that_of_the_test_split(result: Result, task: fw.Task) -> None:
    scores = task.scores("test")
    assert result.before.quality.value == pytest.approx(auc(scores.outputs, scores.targets), abs=1e-6)
    after = task.scores("test", result.model)
    assert result.after.quality.value == pytest.approx(auc(after.outputs, after.targets), abs=1e-5)
    assert result.drop.n == len(scores.targets) == 1_500
    assert result.drop.value == pytest.approx(result.before.quality.value - result.after.quality.value)
    assert result.drop.low < result.drop.value < result.drop.high
    assert set(result.before.guards) == set(result.after.guards) == {"logloss", "calibration_error"}
    assert (result.before.split, result.after.split) == ("test", "test")


def test_result_is_made_of_the_nouns(result: Result) -> None:
    assert isinstance(result.before, Measurement)
    assert isinstance(result.drop, fw.Estimate)
    (change,) = result.changes
    assert isinstance(change, fw.Change)
    assert change.step == "encode_tables"
    assert result.frontier == change.curve
    assert [point.table_bytes for point in result.frontier if point.chosen] == [result.after.table_bytes]
    assert not result.interrupted
    assert result.engine in ("onnxruntime", "openvino")


def test_missed_limits_are_said_with_numbers(result: Result) -> None:
    assert not result.met
    assert result.missed == (f"the model takes {result.after.bytes:,} bytes, {result.after.bytes - 10:,} over 10",)


def test_printed_result_says_what_matters(result: Result) -> None:
    text = str(result)
    for word in ("tiny ranker", "AUC", "over 10", f"{result.after.bytes - 10:,}"):
        assert word in text
    assert repr(result) == text  # what a notebook shows


def test_report_says_how_near_to_the_limit_the_model_runs(result: Result, tmp_path: Path) -> None:
    words = r"the floor is [\d.e-]+ ms, bound by (memory|compute|overhead) .*: [\d.]+% of the limit"
    assert re.search(words, result.data.limit)
    result.report(tmp_path / "page.html")
    assert "of the limit" in (tmp_path / "page.html").read_text()


def test_task_shows_itself_without_its_data(task: fw.Task) -> None:
    assert "tensor(" not in repr(task)
    assert "metric='auc'" in repr(task)


def test_report_is_one_page(result: Result, tmp_path: Path) -> None:
    page = result.report(tmp_path / "new" / "report.html")
    assert page.read_text().startswith("<!doctype html>")
    with pytest.raises(fw.InputError, match="cannot be written to"):
        result.report(tmp_path)


def test_users_model_is_unchanged(task: fw.Task, result: Result) -> None:
    assert all(torch.equal(value, STATE["weights"][name]) for name, value in task.model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in task.model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in task.model.modules())
    assert type(task.model.item) is torch.nn.Embedding


def test_saved_bundle_scores_like_the_compressed_model(result: Result, bundle: Path) -> None:
    items, prices = np.array([0, ITEMS - 1, 5, 5]), np.array([0.1, 0.9, 0.5, 0.5], dtype=np.float32)
    with fw.load(bundle) as ranker:
        got = scored(ranker, USERS - 1, items, prices)
        inputs = {"user_id": np.full(4, USERS - 1), "item_id": items, "price": prices}
        np.testing.assert_allclose(ranker.predict(inputs), got, rtol=1e-5)
    with torch.no_grad():
        expected = result.model(**{name: torch.from_numpy(value) for name, value in inputs.items()}).numpy()
    assert got.shape == (4,)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_bundle_scores_the_test_split_as_the_result_says(result: Result, bundle: Path) -> None:
    columns, clicked = world(1_500, 2)
    with fw.load(bundle) as ranker:
        scores = ranker.predict({name: values.numpy() for name, values in columns.items()})
    assert auc(scores, clicked.numpy()) == pytest.approx(result.after.quality.value, abs=1e-5)


def test_bundle_proves_itself(bundle: Path) -> None:
    assert fw.verify(bundle).ok


def test_saving_refuses_to_overwrite_unless_told(result: Result, bundle: Path) -> None:
    with pytest.raises(fw.InputError, match=r"exists; choose another path, or overwrite it \(overwrite=True"):
        result.save(bundle)
    assert result.save(bundle, overwrite=True) == bundle
    assert fw.verify(bundle).ok


def test_bytes_on_disk_are_the_bytes_stated(result: Result, bundle: Path) -> None:
    files = [bundle / name for name in (MODEL, DATA) if (bundle / name).exists()]
    assert sum(file.stat().st_size for file in files) == result.after.bytes


def test_same_seed_gives_byte_identical_files(task: fw.Task, bundle: Path, tmp_path: Path) -> None:
    again = fw.compress(task, fw.Budget(max_drop=0.5, max_bytes=10), steps=STEPS, rewrite=True)
    again.save(tmp_path / "again.fly")
    names = [name for name in (MANIFEST, MODEL, DATA, SAMPLES) if (bundle / name).exists()]
    assert names[:2] == [MANIFEST, MODEL]
    for name in names:
        assert (tmp_path / "again.fly" / name).read_bytes() == (bundle / name).read_bytes(), name


def test_model_that_was_left_training_stays_so(task: fw.Task) -> None:
    model = seeded(Ranker).train()
    model.mlp[1].eval()
    given = fw.Task(model, task.inputs, task.train, task.validation, task.test)
    fw.compress(given, steps=STEPS)
    assert model.training
    assert not model.mlp[1].training


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"steps": [len]}, "steps must hold steps such as EncodeTables(ratio=100); seen builtin_function_or_method"),
        ({"steps": fw.EncodeTables(ratio=2)}, "steps must be a list of steps; seen EncodeTables"),
        ({"budget": 0.001}, "budget must be a Budget, as in Budget(max_drop=0.001); seen float"),
    ],
)
def test_arguments_of_another_kind_are_named(task: fw.Task, call: dict[str, Any], words: str) -> None:
    with pytest.raises(fw.InputError) as error:
        fw.compress(task, **call)
    assert words in str(error.value)


def test_task_of_another_kind_is_named() -> None:
    with pytest.raises(fw.InputError, match="task must be a Task; seen Ranker"):
        fw.compress(Ranker())  # type: ignore[arg-type]


@pytest.mark.parametrize("limits", [{"max_bytes": 50}, {"min_size_ratio": 1_000_000}])
def test_budget_below_any_model_is_refused_instead_of_searched(
    task: fw.Task, limits: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyweight.planning.search.search.Search.run", None)
    (name,) = limits
    with pytest.raises(fw.InputError, match=f"Budget {name}=.* cannot be met: .*one vector for each band"):
        fw.compress(task, fw.Budget(**limits))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_drop": 0}, "max_drop must be a positive number; seen 0"),
        ({"max_drop": -0.1}, "seen -0.1"),
        ({"min_size_ratio": "8"}, "min_size_ratio must be a positive number; seen '8'"),
        ({"max_latency_ms": float("inf")}, "max_latency_ms must be a positive number; seen inf"),
        ({"max_bytes": True}, "max_bytes must be a positive number; seen True"),
        ({"confidence": 1.0}, "confidence must be below 1, as in 0.95; seen 1.0"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(fw.InputError) as error:
        fw.Budget(**limits)
    assert words in str(error.value)


def measured(size: int) -> Measurement:
    return Measurement(size, size // 2, 10, fw.Estimate(0.8, 0.7, 0.9, n=100))


def timed(p50: float) -> Latency:
    return Latency(p50, p50, p50, p50, p50, repeats=9, candidates=500, threads=1)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_drop": 0.002}, ["the drop in auc is at most +0.0030, 0.0010 over 0.002"]),
        ({"max_drop": 0.003}, []),
        ({"max_bytes": 900}, ["the model takes 1,000 bytes, 100 over 900"]),
        ({"max_bytes": 1_000}, []),
        ({"min_size_ratio": 20}, ["the model is 10.0 times smaller, not 20 times"]),
        ({"max_latency_ms": 1.5}, ["a request of 500 candidates takes 2.00 ms, not 1.5 ms"]),
        ({"min_speedup": 4}, ["it is 3.0 times faster, not 4 times"]),
        ({"min_speedup": 3, "min_size_ratio": 10, "max_latency_ms": 2}, []),
    ],
)
def test_what_was_missed_is_said_by_how_much(limits: dict[str, float], words: list[str]) -> None:
    drops = {"auc": fw.Estimate(0.001, -0.001, 0.003, n=100)}
    missed = fw.Budget(**limits).missed(measured(10_000), measured(1_000), drops, timed(6.0), timed(2.0))  # type: ignore[arg-type]
    assert list(missed) == words
