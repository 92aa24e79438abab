"""A bundle measured again: every engine that is right, and a timing file that readers accept."""

import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from flyweight.bundle import load as loading
from flyweight.bundle.bench import EVERY, bench
from flyweight.bundle.load import load
from flyweight.bundle.read import read_bundle
from flyweight.bundle.retime import retime
from flyweight.bundle.timing import Timing
from flyweight.bundle.verify import verify
from flyweight.bundle.write import write_bundle
from flyweight.engines.forms import PreparedForms
from flyweight.engines.registry import ENGINES, find_engine
from flyweight.errors import EngineError, InputError

LIGHT = ("onnxruntime", "openvino", "openvino-bf16", "torch")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    return write_bundle(folder / "ranker.fly", tiny_models.contents(folder / "e"))


@pytest.fixture
def path(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "ranker.fly"))


def test_every_engine_is_timed_at_every_size(path: Path) -> None:
    before = (path / "timing.json").read_bytes()
    found = bench(path, threads=1, candidates=(50, 200), seconds=0.2, engines=LIGHT)
    timed = {(one.engine, one.threads, one.latency.candidates) for one in found.timed}
    assert timed >= {(name, 1, size) for name in ("onnxruntime", "openvino", "torch") for size in (50, 200)}
    assert found.chosen.latency.p50 == min(
        one.latency.p50 for one in found.timed if one.latency.candidates == 50 and one.engine in (*ENGINES, "torch")
    )
    assert (path / "timing.json").read_bytes() == before


def test_chosen_engine_and_threads_are_written_and_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {file.name: file.read_bytes() for file in path.iterdir() if file.name != "timing.json"}
    found = bench(path, threads=1, seconds=0.2, engines=("openvino",), choose=True)
    assert (found.chosen.engine, found.chosen.threads) == ("openvino", 1)
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.name != "timing.json"} == rest
    assert not list(path.parent.glob(".*"))
    timing = read_bundle(path).timing
    assert (timing.engine, timing.threads, timing.wall_seconds) == ("openvino", 1, 1.5)
    assert timing.latency.after is not None
    assert timing.latency.after.p50 == found.chosen.latency.p50
    assert timing.latency.before is None  # taken on another machine, "a processor"
    asked = []
    engine = find_engine("openvino")
    real = engine.prepare
    monkeypatch.setattr(engine, "prepare", lambda model, threads: asked.append(threads) or real(model, threads))
    with load(path) as ranker:
        assert ranker.engine == "openvino"
    load(path, threads=0).close()
    assert asked == [1, 0]
    assert verify(path).ok


def test_threads_of_a_larger_machine_are_left_to_the_engine(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = read_bundle(path)
    retime(bundle, Timing.model_validate(tiny_models.timing().model_dump() | {"threads": 4096}))
    asked = []
    engine = find_engine("onnxruntime")
    real = engine.prepare
    monkeypatch.setattr(engine, "prepare", lambda model, threads: asked.append(threads) or real(model, threads))
    load(path).close()
    assert asked == [0]


def test_engine_that_rounds_is_timed_and_not_chosen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its quality was certified nowhere; in a bundle that was certified in it, it may be chosen."""

    class Near(PreparedForms):
        def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
            return super().run(inputs) * np.float32(1.01)

    monkeypatch.setattr(find_engine("torch-bf16"), "prepare", lambda model, threads: _like(Near, model, threads))
    found = bench(path, threads=1, seconds=0.2, engines=("onnxruntime", "torch-bf16"))
    assert {one.engine for one in found.timed} == {"onnxruntime", "torch-bf16"}
    assert found.chosen.engine == "onnxruntime"
    retime(read_bundle(path), tiny_models.timing("torch-bf16"))
    assert bench(path, threads=1, seconds=0.1, engines=("torch-bf16",)).chosen.engine == "torch-bf16"


def _like(kind: type[PreparedForms], model: Path, threads: int) -> PreparedForms:
    made = find_engine("torch").__class__().prepare(model, threads)
    made.__class__ = kind
    return made


def test_no_engine_right_is_an_error_with_reasons(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find_engine("torch"), "available", lambda: "torch is not installed")
    with pytest.raises(EngineError, match=r"No engine here gives the scores .*\(torch: torch is not installed\)"):
        bench(path, engines=("torch",))


NUMBERS = "bench takes 1 candidate or more and a finite number of seconds above 0"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"candidates": (0,)}, NUMBERS),
        ({"candidates": ()}, NUMBERS),
        ({"seconds": 0.0}, NUMBERS),
        ({"seconds": float("nan")}, NUMBERS),
        ({"seconds": float("inf")}, NUMBERS),
        ({"threads": -1}, "threads must be a whole number from 0 on; seen -1"),
        ({"threads": 10**9}, r"threads must be at most [\d,]+ with the \d+ cores? here; seen 1,000,000,000"),
        ({"engines": ("onnxruntime", "openvimo")}, "Engine 'openvimo' is unknown; .* The nearest is 'openvino'"),
        ({"engines": "onnxruntime"}, r"engines must be a list of names, such as \['onnxruntime'\]; seen 'onnxruntime'"),
        ({"engines": ("openvino-bf16",)}, "openvino-bf16: bf16 was not certified for .*; add a certified engine"),
    ],
)
def test_settings_out_of_range_are_refused(path: Path, wrong: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        bench(path, **wrong)  # type: ignore[arg-type]


def test_reason_names_its_engine_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find_engine("inductor"), "available", lambda: "inductor: g++ is not installed")
    with pytest.raises(EngineError, match=r"\(inductor: g\+\+ is not installed\)"):
        bench(path, threads=1, engines=("inductor",))


def test_loading_falls_to_torch_when_the_others_are_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENGINES["onnxruntime"], "available", lambda: "onnxruntime is not installed")
    monkeypatch.setattr(ENGINES["openvino"], "prepare", _refuses)
    with pytest.warns(UserWarning, match=r"timed in onnxruntime; using torch \(onnxruntime is not installed\)"):
        ranker = load(path)
    items, prices = np.array([0, 5]), np.array([0.5, 1.0], dtype=np.float32)
    due = tiny_models.expected(np.array([7, 7]), items, prices)
    np.testing.assert_allclose(ranker.score({"user_id": 7}, {"item_id": items, "price": prices}), due, rtol=1e-5)


def _refuses(model: Path, threads: int) -> None:
    raise EngineError("openvino has no Frobnicate for this model")


def test_recorded_torch_engine_is_taken_without_a_warning(path: Path) -> None:
    retime(read_bundle(path), tiny_models.timing("torch"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with load(path) as ranker:
            assert ranker.engine == "torch"


def test_every_engine_is_known() -> None:
    assert {find_engine(name).name for name in EVERY} == set(EVERY) == set(loading.KNOWN)


def test_command_shows_and_writes(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flyweight.cli.main import main

    words = ["flyweight", "bench", str(path), "--threads", "1", "--seconds", "0.1", "--engine", "onnxruntime"]
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", [*words, "--choose"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code in (0, None)
    said = capsys.readouterr().out
    assert "fastest: onnxruntime with 1 thread, " in " ".join(said.split())
    assert "largest difference" in " ".join(said.split())
    monkeypatch.setattr(sys, "argv", [*words, "--json", str(path / "no" / "such.json")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "such.json: No such file or directory; change --json." in "".join(capsys.readouterr().err.splitlines())
    monkeypatch.setattr(sys, "argv", [*words, "--json", "-"])
    with pytest.raises(SystemExit):
        main()
    facts = json.loads(capsys.readouterr().out)
    assert facts["chosen"]["engine"] == "onnxruntime"
    assert facts["timed"][0]["latency"]["candidates"] == 500
