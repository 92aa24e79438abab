"""The command line as a user has it: the real executable, its exit codes, and what it says."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Call = Callable[..., tuple[int, str, str]]
Done = "subprocess.CompletedProcess[str]"
HIDES_TORCH = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "matplotlib", "jinja2", "onnxscript", "polars", "scipy"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from flyweight.cli.main import main
main()
"""


def test_compress_saves_and_says(saved: Done, place: Path) -> None:
    assert saved.returncode == 0, saved.stderr
    assert (place / "mine.fly" / "model.onnx").is_file()
    assert (place / "mine.html").read_text().lstrip().startswith("<!")
    assert "Embedding tables" in saved.stdout
    assert "flyweight inspect mine.fly" in saved.stdout
    assert "trial 0: tables" in saved.stderr
    assert "Exporting the compressed model" in saved.stderr
    assert (place / "mine.fly.run" / "trials.db").is_file()
    assert not list((place / "temp").glob("flyweight*"))


def test_result_fits_80_columns_without_wrapped_cells(saved: Done) -> None:
    lines = [line.rstrip() for line in saved.stdout.splitlines()]
    head = next(at for at, line in enumerate(lines) if "before" in line)
    rows = lines[head + 2 : lines.index("", head)]
    assert rows
    assert max(len(line) for line in lines) <= 80
    assert all(row[0] != " " for row in rows), "a row begins with its title, a wrapped one does not"


def test_inspect_prints_the_agreed_keys(saved: Done, call: Call) -> None:
    facts = json.loads(call("inspect", "mine.fly", "--json", "-")[1])
    for part in (facts["before"], facts["after"]):
        assert {"bytes", "table_bytes", "macs", "quality"} <= set(part)
        assert set(part["quality"]) == {"value", "low", "high", "n"}
    assert set(facts["drop"]) == {"value", "low", "high", "n", "confidence", "certified"}
    assert facts["drop"]["certified"] is True
    assert facts["drop"]["n"] == 1_500
    assert {"p50", "p95", "p99"} <= set(facts["latency_ms"]["before"]) & set(facts["latency_ms"]["after"])
    assert facts["before"]["table_bytes"] == 4 * 8 * (60 + 400) > facts["after"]["table_bytes"]
    assert facts["engine"] in {"onnxruntime", "openvino"}
    assert isinstance(facts["skipped"], list)


def test_inspect_without_json_shows_the_table_of_the_result(saved: Done, call: Call) -> None:
    code, said, _ = call("inspect", "mine.fly")
    result = saved.stdout.strip()
    sizes = [line.split() for line in result.splitlines() if line.startswith(("Model on", "Embedding", "AUC", "500"))]
    shown = [line.split() for line in said.splitlines()]
    assert code == 0
    assert len(sizes) == 5
    assert all(row[:6] in [line[:6] for line in shown] for row in sizes)
    assert "certified on 1,500 rows" in " ".join(said.split())
    assert ("Each request is worked out once" in said) == ("Each request is worked out once" in result)


def test_inspect_writes_a_file_or_says_why_not(saved: Done, call: Call, tmp_path: Path) -> None:
    assert call("inspect", "mine.fly", "--json", str(tmp_path / "facts.json"))[0] == 0
    assert json.loads((tmp_path / "facts.json").read_text())["name"]
    code, _, said = call("inspect", "mine.fly", "--json", str(tmp_path / "no" / "facts.json"))
    assert (code, "cannot be written to" in said) == (2, True)


def test_verify_tells_good_from_damaged(saved: Done, call: Call, tmp_path: Path) -> None:
    assert call("verify", "mine.fly")[0] == 0
    copy = tmp_path / "bad.fly"
    shutil.copytree("mine.fly", copy)
    model = copy / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    code, said, _ = call("verify", str(copy))
    assert code == 1
    assert "NOT verified" in said
    assert "model.onnx" in said


def test_report_copies_the_page_or_says_why_not(saved: Done, call: Call, tmp_path: Path) -> None:
    assert call("report", "mine.fly", "--out", str(tmp_path / "page.html"))[0] == 0
    assert "<svg" in (tmp_path / "page.html").read_text()
    code, _, said = call("report", "mine.fly", "--out", str(tmp_path / "no" / "page.html"))
    assert (code, "change --out" in said) == (2, True)
    assert call("report", "nowhere.fly")[0] == 2


def test_without_torch_bundles_are_read_and_compressing_says_what_to_install(saved: Done, place: Path) -> None:
    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-c", HIDES_TORCH, *words], cwd=place, capture_output=True, text=True)

    assert json.loads(run("inspect", "mine.fly", "--json", "-").stdout)["drop"]["certified"]
    assert run("verify", "mine.fly").returncode == 0
    refused = run("compress", "mine.py:task", "--out", "new.fly")
    assert refused.returncode == 2
    words = "error: This needs torch, which serving does not: pip install 'flyweight[compress]'"
    assert refused.stderr.strip() == words


def test_missed_budget_is_saved_and_exits_with_1(flyweight: Run, place: Path) -> None:
    limits = ("--max-drop", "0.2", "--min-size-ratio", "8", "--max-trials", "1")
    done = flyweight("compress", "mine.py:task", *limits, "--out", "missed.fly")
    assert done.returncode == 1, done.stderr
    assert "Budget missed: the model is" in done.stdout
    assert "times smaller, not 8 times" in done.stdout
    said = " ".join(done.stdout.split())
    assert re.search(r"What would help: trial 0 \(tables [\d,]+x\) would do with [\d,]+ bytes\.", said), said
    assert (place / "missed.fly" / "manifest.json").is_file()


WRONG = {
    "nowhere.py:task": "There is no file nowhere.py",
    "mine.py:tsk": "mine.py has no function 'tsk'. Did you mean 'task'?",
    "mine.py": "lacks a function",
    "mine.py:nothing": "returned int; it must return a flyweight.Task",
    "mine.py:broken": "mine.py, line 37: KeyError: 'missing'",
    "slips.py:task": "slips.py, line 2: SyntaxError",
    "lacks.py:task": "lacks.py, line 1: ModuleNotFoundError: No module named 'no_such_package'",
    "mine.py:one_class": "targets of the test split are 0; auc needs both classes",
    "mine.py:far_ids": "item_id",
    "mine.py:nan_weights": "item.weight",
    "complete-journy": "Did you mean 'complete-journey'?",
}


@pytest.mark.parametrize("source", WRONG)
def test_wrong_input_is_one_line_and_exits_with_2(call: Call, place: Path, source: str) -> None:
    code, _, said = call("compress", source, "--out", "wrong.fly")
    assert code == 2
    assert WRONG[source] in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert not (place / "wrong.fly").exists()


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (("compress", "mine.py:task", "--max-drop", "-3"), "error: Budget max_drop must be a positive number"),
        (("compress", "mine.py:task", "--max-dorp", "1"), "--max-drop"),
        (("compres",), "Did you mean 'compress'?"),
        (("inspect", "nowhere.fly"), "error: There is no bundle at nowhere.fly: no such folder. Check the path."),
        (("verify", "mine.fly", "--engine", "tensorrt"), "error: Engine 'tensorrt' is unknown"),
    ],
)
def test_wrong_words_are_refused_by_name(call: Call, words: tuple[str, ...], seen: str) -> None:
    code, _, said = call(*words)
    assert code == 2
    assert seen in said


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("here.fly", "here.fly lacks manifest.json, so it is no bundle and is not overwritten"),
        ("mine.py/new.fly", "mine.py is no folder"),
    ],
)
def test_output_that_cannot_be_written_is_found_before_the_work(
    call: Call, place: Path, target: str, words: str
) -> None:
    (place / "here.fly").mkdir(exist_ok=True)
    code, _, said = call("compress", "mine.py:task", "--out", target, "--overwrite")
    assert code == 2
    assert words in said
    assert "Exporting" not in said


def test_existing_output_is_found_before_the_work(saved: Done, call: Call) -> None:
    code, _, said = call("compress", "mine.py:task", "--out", "mine.fly")
    assert code == 2
    assert "mine.fly exists; choose another path" in said
    assert "Exporting" not in said


def test_debug_shows_the_traceback_anywhere_on_the_line(flyweight: Run) -> None:
    assert "Traceback" in flyweight("compress", "--debug", "mine.py:broken").stderr


@pytest.mark.parametrize("verb", [(), ("demo",), ("compress",), ("inspect",), ("verify",), ("report",)])
def test_help_fits_80_columns(call: Call, verb: tuple[str, ...]) -> None:
    code, said, _ = call(*verb, "--help")
    assert code == 0
    assert max(len(line) for line in said.splitlines()) <= 80
    assert "Usage: flyweight" in said


@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_interrupted_verb_says_so_in_a_line_and_leaves_with_130(
    saved: Done, call: Call, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    import importlib

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module(f"flyweight.bundle.{verb}"), verb, interrupted)
    code, said, told = call(verb, "mine.fly")
    assert (code, said, told) == (130, "", "Stopped; nothing was written.\n")


def test_bench_refuses_before_the_work_what_cannot_be(saved: Done, call: Call) -> None:
    code, _, told = call("bench", "mine.fly", "--engine", "onnxruntim")
    assert (code, "The nearest is 'onnxruntime'" in " ".join(told.split())) == (2, True)
    code, _, told = call("bench", "mine.fly", "--threads", str(2**40))
    assert (code, "seen 1,099,511,627,776" in " ".join(told.split())) == (2, True)
