"""Whatever a step, a metric, an engine or the user does in a search, it ends with a result or with a reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from on_paper import OnPaper, begun, bench_of, search_of

import flyweight as fw
from flyweight.planning import measuring
from flyweight.planning.artefact import make_artefact
from flyweight.planning.search import search as module
from flyweight.planning.search import workbench
from flyweight.planning.search.candidate import Candidate, steps_of
from flyweight.planning.search.clock import Clock
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.run_trial import run_trial
from flyweight.planning.search.search import Search
from flyweight.planning.search.workbench import MOST_KEPT
from flyweight.tables.coder import TableCoder
from small_tasks import Ranker, seeded, splits, trained_task

BUDGET = fw.Budget(max_drop=0.2)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return begun(tmp_path / "run")


@pytest.fixture(autouse=True)
def _few_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three trials that share no step: rewriting alone, tables, layers."""
    first = [Candidate(), Candidate(tables=20.0), Candidate(bits="int8")]
    monkeypatch.setattr(module, "first_candidates", lambda *_: first)
    monkeypatch.setattr(module, "plan_first", lambda *_: [])


def raising(error: BaseException) -> Callable[..., Any]:
    def throws(*_: object, **__: object) -> Any:
        raise error

    return throws


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("a shape that fits nowhere"), "ValueError: a shape that fits nowhere"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 TB"), "RuntimeError: DefaultCPUAlloc"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum recursion depth exceeded"),
        (KeyError("layer"), "KeyError: 'layer'"),
        (fw.InputError("the step has nothing to do"), "the step has nothing to do"),
        (StopIteration(), "StopIteration"),
    ],
)
def test_a_step_that_throws_is_a_failed_trial_and_the_search_goes_on(
    ranker: fw.Task, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    monkeypatch.setattr(fw.Quantize, "apply", raising(error))
    found = search_of(ranker, folder, BUDGET, 3).run()
    states = {one.candidate.bits: one for one in found.outcomes}
    assert states["int8"].state == "failed"
    assert states["int8"].reason.startswith(reason)
    assert [one.state for one in found.outcomes].count("done") == 2
    assert found.best.candidate.tables > 1


def test_a_trial_short_of_memory_lets_go_of_what_others_left(
    ranker: fw.Task, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(ranker, folder)
    bench.make(steps_of(Candidate(units=0.5), 500))
    assert bench._kept
    monkeypatch.setattr(fw.Quantize, "apply", raising(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")))
    outcome = tried(bench, Candidate(bits="int8"), folder)
    assert outcome.state == "failed"
    assert not bench._kept


def tried(bench: OnPaper, candidate: Candidate, folder: RunFolder) -> Any:
    clock = Clock(1e6)
    return run_trial(
        bench, 0, candidate, macs=500, inside=(), margin=None, clock=clock, learning=folder.learning
    )


def test_a_step_that_gives_weights_that_are_no_numbers_is_a_failed_trial(
    ranker: fw.Task, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fw.Prune.apply

    def breaks(step: fw.Prune, task: fw.Task) -> fw.Change:
        change = whole(step, task)
        with torch.no_grad():
            change.model.get_parameter(next(name for name, _ in change.model.named_parameters())).fill_(float("nan"))
        return change

    monkeypatch.setattr(fw.Prune, "apply", breaks)
    outcome = tried(bench_of(ranker, folder), Candidate(units=0.5), folder)
    assert outcome.state == "failed"
    assert "NaN or infinite values" in outcome.reason


class Bags(torch.nn.Module):
    """Means of flat bags, which PyTorch exports in an operator that no bundle may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = torch.nn.EmbeddingBag(50, 4)

    def forward(self, items: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.bag(items, offsets).sum(1)
        return found


def test_an_export_that_no_bundle_may_hold_is_found_out_in_its_trial(tmp_path: Path) -> None:
    rows = [({"items": torch.arange(90) % 50, "offsets": torch.arange(30) * 3}, (torch.arange(30) % 2).float())]
    task = fw.Task(Bags(), {"items": fw.Field(rows=50), "offsets": fw.Field()}, rows, rows, rows)
    artefact = make_artefact(task.model, [rows[0][0]], 30, tmp_path)
    with pytest.raises(fw.BundleError, match=r"The exported model: ScatterND .* writes to places"):
        workbench._check_savable(task, artefact)


def test_predictions_that_throw_leave_the_search_to_its_trials(
    ranker: fw.Task, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TableCoder, "ratio_within", raising(fw.InputError("gives NaN")))
    found = search_of(ranker, folder, BUDGET, 3).run()
    assert {one.state for one in found.outcomes} == {"done"}


class OnlyTheOriginal:
    """A metric that is a number for scores of the original alone."""

    def __init__(self) -> None:
        self.known = np.zeros(0)

    def __call__(self, outputs: Any, targets: Any) -> float:
        outputs = np.asarray(outputs)
        if len(self.known):
            near = self.known[np.searchsorted(self.known, outputs).clip(0, len(self.known) - 1)]
            below = self.known[(np.searchsorted(self.known, outputs) - 1).clip(0)]
            if np.minimum(abs(near - outputs), abs(below - outputs)).max() > 1e-4:
                return float("nan")
        return float(np.mean((outputs > 0) == (np.asarray(targets) > 0.5)))


def test_a_metric_that_fails_for_every_compressed_model_leaves_rewriting_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it, exported and certified."""
    monkeypatch.setattr(measuring, "resident_growth", lambda *_: None)
    metric = OnlyTheOriginal()
    task = trained_task(seeded(Ranker), metric=metric, loss=torch.nn.functional.binary_cross_entropy_with_logits)
    metric.known = np.sort(np.concatenate([task.scores(split).outputs for split in ("validation", "test")]))
    result = fw.compress(task, BUDGET, max_trials=3, run=tmp_path / "run")
    trials = result.data.search.trials  # type: ignore[union-attr]
    assert [trial.state for trial in trials] == ["done", "failed", "failed"]
    assert all("must return one finite number; seen nan" in trial.reason for trial in trials[1:])
    assert [trial.words for trial in trials if trial.chosen] == ["rewriting alone"]
    assert (result.drop.value, result.met) == (0.0, True)
    assert all(trial.reason in result.contents.report for trial in trials)


def test_a_metric_that_is_no_number_at_all_is_refused_before_the_search(tmp_path: Path) -> None:
    def nothing(outputs: Any, targets: Any) -> float:
        return float("nan")

    task = trained_task(
        seeded(Ranker), metric=nothing, loss=torch.nn.functional.binary_cross_entropy_with_logits
    )
    with pytest.raises(fw.InputError, match=r"must return one finite number; seen nan.*original itself on"):
        fw.compress(task, BUDGET, run=tmp_path / "run")
    assert not (tmp_path / "run" / "trials.db").exists()


def test_where_no_trial_can_be_measured_there_is_one_error_with_the_reasons(
    ranker: fw.Task, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnPaper, "judge", raising(fw.EngineError("no engine gives the scores that PyTorch gives")))
    with pytest.raises(fw.InputError) as error:
        search_of(ranker, folder, BUDGET, 3).run()
    assert str(error.value).startswith("Nothing that was tried could be measured (rewriting alone: no engine gives")


def test_an_interrupt_in_a_trial_certifies_the_best_so_far(
    ranker: fw.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "resident_growth", lambda *_: None)
    monkeypatch.setattr(fw.Quantize, "apply", raising(KeyboardInterrupt()))
    result = fw.compress(ranker, BUDGET, run=tmp_path / "run", max_trials=9)
    assert result.interrupted
    assert result.data.certified
    told = result.data.search
    assert told is not None
    assert told.stopped == "it was interrupted"
    assert [trial.state for trial in told.trials] == ["done", "done"]
    assert [trial.chosen for trial in told.trials] == [False, True]
    saved = result.save(tmp_path / "interrupted.fly")
    assert fw.verify(saved).ok


def test_models_kept_are_few_however_many_trials_there_are(
    ranker: fw.Task, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(ranker, folder)
    for number in range(MOST_KEPT + 4):
        bench.make(steps_of(Candidate(tables=5.0 + number, teacher=20.0, epochs=1.0), 500)[:2])
    assert len(bench._kept) <= MOST_KEPT
    assert len(bench._teachers) == 1
    teachers = {id(change.teacher) for made in bench._kept.values() for change in made.changes if change.teacher}
    assert len(teachers) == 1  # so that it is asked once for each batch, by all students


LEARNED = Candidate(tables=20.0, epochs=1.0)


def made_of(bench: OnPaper, folder: RunFolder) -> dict[str, torch.Tensor]:
    steps = steps_of(LEARNED, 500)
    return bench.remade(steps, folder.learning).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_was_learned_is_read_from_its_file_in_another_sitting(
    ranker: fw.Task, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench_of(ranker, folder)
    for ratio in (4.0, 50.0):  # what other trials coded before must not matter
        first.coder.at(ratio, rounds=0)
    learned = made_of(first, folder)
    monkeypatch.setattr("flyweight.distillation.run.Run._learn", raising(AssertionError("it learns again")))
    assert same(made_of(bench_of(ranker, folder), folder), learned)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_file_of_learning_that_is_damaged_or_of_another_is_put_away(
    ranker: fw.Task, folder: RunFolder, content: bytes | None
) -> None:
    learned = made_of(bench_of(ranker, folder), folder)
    (file,) = (folder.path / "learning").iterdir()
    if content is None:
        other = trained_task(seeded(Ranker), {**splits(), "train": splits()["validation"]})
        fw.Distill(epochs=0.5, checkpoint=file.with_name("other.pt")).apply(other)
        content = file.with_name("other.pt").read_bytes()
    file.write_bytes(content)
    assert same(made_of(bench_of(ranker, folder), folder), learned)


def test_the_file_of_a_training_is_named_after_all_that_it_hangs_on(folder: RunFolder) -> None:
    candidates = [
        LEARNED,
        Candidate(tables=20.1, epochs=1.0),
        Candidate(tables=20.0, epochs=2.0),
        Candidate(tables=20.0, epochs=1.0, teacher=20.0),
        Candidate(tables=20.0, epochs=1.0, teacher=40.0),
        Candidate(tables=20.0, epochs=1.0, units=0.5),
        Candidate(tables=20.0, epochs=1.0, seed=1),
        Candidate(tables=20.0, epochs=1.0, macs=0.5, learn_first=False),
    ]
    places = [steps_of(one, 500) for one in candidates]
    ends = [next(at for at, step in enumerate(steps) if isinstance(step, fw.Distill)) + 1 for steps in places]
    files = {folder.learning(repr(steps[:end])) for steps, end in zip(places, ends, strict=True)}
    assert len(files) == len(candidates)


def test_the_disk_that_fills_up_ends_the_search_with_its_reason_and_loses_nothing(
    ranker: fw.Task, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = RunFolder.note
    notes: list[Any] = []

    def fills(self: RunFolder, **facts: Any) -> None:
        notes.append(facts)
        if "seconds" in facts and len([one for one in notes if "seconds" in one]) > 3:
            raise fw.InputError("run.json cannot be written: No space left on device; make room, or name another.")
        whole(self, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "note", fills)
        with pytest.raises(fw.InputError, match="No space left on device"):
            search_of(ranker, folder, BUDGET, 3).run()
    found = search_of(ranker, folder, BUDGET, 3).run()
    assert [one.state for one in found.outcomes] == ["done"] * 3
    assert isinstance(search_of(ranker, folder, BUDGET), Search)
