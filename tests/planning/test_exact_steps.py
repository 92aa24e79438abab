"""A result's recipe: run again it gives the same bytes whatever the clock says, and an edit takes effect."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import flyweight as fw
from flyweight.bundle.manifest import DATA, MANIFEST, MODEL, SAMPLES
from flyweight.bundle.strict_json import parse
from flyweight.engines.openvino import OpenVino
from flyweight.planning import rewriting
from flyweight.planning.exact_steps import exact_steps, inexact
from flyweight.planning.gate import Gate
from flyweight.planning.recipe import read_recipe
from flyweight.planning.result import Result
from flyweight.quantization.measured import Timed
from flyweight.quantization.mixed import ALL, FLOAT
from flyweight.tables.coded_teacher import CodedTeacher
from flyweight.task.change import Skipped
from flyweight.task.estimate import Estimate
from small_tasks import Ranker, seeded, trained_task

STEPS = [
    fw.EncodeTables(ratio=8, seed=4),
    CodedTeacher(ratio=3),
    fw.Prune(ratio=0.3, multiple=2),
    fw.Distill(epochs=1),
    fw.Factorize(max_macs=150, multiple=1),
    fw.Quantize(max_error=0.9),
]
QUICKER, SLOWER = Estimate(2.0, 1.9, 2.1, n=100), Estimate(0.5, 0.4, 0.6, n=100)


@pytest.fixture(scope="module", autouse=True)
def _one_engine(_quick: None) -> Iterator[None]:
    """Scores of one engine alone are certified: which of two is quickest would show in their last digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenVino, "available", lambda self: "left out here")
        yield


@pytest.fixture(scope="module")
def task() -> fw.Task:
    return trained_task(seeded(Ranker), name="tiny ranker")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Estimate], None]:
    """A clock that says the same of every step, rewrite and candidate."""

    def set_to(gain: Estimate) -> None:
        def timed(models: dict[str, object], inputs: object) -> dict[str, Timed]:
            fast = ALL if gain.value > 1 else FLOAT
            return {label: Timed(label, 100, 1.0 if label == fast else 9.0, "onnxruntime") for label in models}

        monkeypatch.setattr(Gate, "gain", lambda *_: gain)
        monkeypatch.setattr("flyweight.quantization.mixed.time_candidates", timed)

    return set_to


@pytest.fixture
def run(task: fw.Task, tmp_path: Path) -> Callable[..., Path]:
    """Compress, save bundle and recipe under a name, and return the bundle."""

    def compress(steps: object, name: str) -> Path:
        result = fw.compress(task, steps=steps)  # type: ignore[arg-type]
        result.save_recipe(tmp_path / f"{name}.toml")
        return result.save(tmp_path / f"{name}.fly")

    return compress


def bytes_of(bundle: Path, *names: str) -> dict[str, bytes]:
    return {name: (bundle / name).read_bytes() for name in names if (bundle / name).exists()}


def test_a_recipe_gives_the_same_bytes_whatever_the_clock_says(
    run: Callable[..., Path], clock: Callable[[Estimate], None], tmp_path: Path
) -> None:
    clock(QUICKER)
    first = run(STEPS, "first")
    recipe = read_recipe(tmp_path / "first.toml")
    assert [step.name for step in recipe.steps] == [step.name for step in STEPS]
    assert recipe.rewrite is True
    clock(SLOWER)
    second = run(recipe, "second")
    third = run(read_recipe(tmp_path / "second.toml"), "third")
    assert bytes_of(first, MODEL, DATA, SAMPLES) == bytes_of(second, MODEL, DATA, SAMPLES)
    assert bytes_of(second, MANIFEST, MODEL, DATA, SAMPLES) == bytes_of(third, MANIFEST, MODEL, DATA, SAMPLES)
    # The manifest of the first says how its steps were chosen; all that was measured is the same.
    told = [parse((bundle / MANIFEST).read_bytes(), MANIFEST) for bundle in (first, second)]
    assert {name for name in told[0] if told[0][name] != told[1][name]} == {"recipe", "curve", "skipped"}
    assert [(tmp_path / f"{name}.toml").read_text().replace(name, "") for name in ("second", "third")] == [
        (tmp_path / "first.toml").read_text().replace("first", "")
    ] * 2


def test_what_the_clock_took_back_is_left_out(
    task: fw.Task, run: Callable[..., Path], clock: Callable[[Estimate], None], tmp_path: Path
) -> None:
    clock(SLOWER)
    first = run([STEPS[0], STEPS[2], STEPS[5]], "first")
    recipe = read_recipe(tmp_path / "first.toml")
    assert [step.name for step in recipe.steps] == ["encode_tables"]
    assert recipe.rewrite is False
    clock(QUICKER)
    second = run(recipe, "second")
    assert bytes_of(first, MODEL, DATA, SAMPLES) == bytes_of(second, MODEL, DATA, SAMPLES)


def test_an_edited_value_takes_effect(task: fw.Task, tmp_path: Path) -> None:
    result = fw.compress(task, steps=[fw.EncodeTables(codings={"item": [{"stop": 400, "coding": "one 2-bit code"}]})])
    text = result.save_recipe(tmp_path / "one.toml").read_text()
    (tmp_path / "two.toml").write_text(text.replace("one 2-bit code", "3 4-bit codes"))
    edited = fw.compress(task, steps=fw.read_recipe(tmp_path / "two.toml"))
    assert edited.data.tables[0].coding == "3 4-bit codes"
    assert edited.after.table_bytes > result.after.table_bytes
    (tmp_path / "two.toml").write_text(text.replace("400", "401"))
    with pytest.raises(fw.InputError, match="has 400 rows, but its bands end at 401"):
        fw.compress(task, steps=fw.read_recipe(tmp_path / "two.toml"))


def test_rewriting_is_as_told(task: fw.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the clock was asked")

    monkeypatch.setattr(rewriting.Gate, "gain", never)
    kept: Result = fw.compress(task, steps=fw.Recipe((), rewrite=True))
    plain = fw.compress(task, steps=fw.Recipe((), rewrite=True), rewrite=False)
    assert kept.rewrites.done
    assert (plain.rewrites.done, plain.rewrites.skipped) == ((), ())
    assert (kept.recipe, plain.recipe) == (fw.Recipe((), rewrite=True), fw.Recipe((), rewrite=False))
    with pytest.raises(fw.InputError, match="rewrite must be True, False, or None to ask the clock; seen 1"):
        fw.compress(task, steps=[], rewrite=1)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Mine:
    """A step of one's own, which keeps no record."""

    name: str = "mine"

    def apply(self, task: fw.Task) -> fw.Change:
        return fw.Change(self.name, task.model)


def test_steps_are_made_explicit_one_by_one(task: fw.Task) -> None:
    done = {
        "training": {"what": "training", "lr": 0.01},
        "rank": {"what": "low rank", "name": "mlp.0", "rank": 4},
        "layer": {"what": "layer", "name": "mlp.0", "to": "int8", "activations": "float32"},
        "table": {"what": "table", "name": "item", "bands": [{"start": 0, "stop": 9, "coding": "float16 rows"}]},
    }
    plan = {"item": [{"stop": 9, "coding": "float16 rows"}]}
    pairs = [
        (fw.Distill(epochs=2, checkpoint="x", seed=3), "distill", "training", fw.Distill(epochs=2, lr=0.01, seed=3)),
        (fw.Factorize(max_macs=9, multiple=8), "factorize", "rank", fw.Factorize(ranks={"mlp.0": 4}, force=True)),
        (
            fw.Quantize(max_error=0.2, smooth=0.5),
            "quantize",
            "layer",
            fw.Quantize(precisions={"mlp.0": "int8"}, activations=None, smooth=0.5, force=True),
        ),
        (fw.Quantize(dynamic=True), "quantize", "layer", fw.Quantize(dynamic=True, force=True)),
        (fw.EncodeTables(max_drop=0.1, seed=2), "encode_tables", "table", fw.EncodeTables(codings=plan, seed=2)),
        (fw.Prune(max_macs=99), "prune", "rank", fw.Prune(max_macs=99, force=True)),
        (fw.ShareWeights(bits=3), "share_weights", "table", fw.ShareWeights(bits=3)),
    ]
    for step, name, record, wanted in pairs:
        change = fw.Change(name, task.model, done=(done[record],))
        assert exact_steps([change], [step]) == (wanted,)
        assert exact_steps([replace(change, done=())], [step]) == (), "one that changed nothing is left out"
    assert exact_steps([fw.Change("mine", task.model)], [Mine()]) == (Mine(),)
    back = fw.Change("mine", task.model, skipped=(Skipped("mine", "taken back: a request became slower", "mine"),))
    assert exact_steps([back], [Mine()]) == ()


def test_an_interrupt_in_training_is_noted() -> None:
    model = Ranker()
    changes = [fw.Change("encode_tables", model, interrupted=True), fw.Change("distill", model, interrupted=True)]
    assert inexact(changes) == (
        "distill was interrupted in its training; run again, it goes on to its end and gives other bytes.",
    )
