"""The benchmark's simulated tasks: 95% intervals cover 93 to 97%, and forgetting the groups shows."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "coverage.py"


def load_benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


benchmark = load_benchmark()


def name_of(question) -> str:
    kind = "drop" if question.drop else "value"
    control = "-control" if question.is_control else ""
    return f"{question.metric}-{kind}-{question.population.draw.__name__}-{question.units}{control}"


@pytest.mark.slow
@pytest.mark.parametrize("question", benchmark.QUESTIONS, ids=name_of)
def test_coverage_over_1000_tasks(question) -> None:
    row = benchmark.measure_coverage(question, tasks=1000)
    if question.is_control:
        assert row["coverage_high"] < 0.93
    elif question.cautious:
        assert row["coverage"] >= 0.93
    else:
        assert 0.93 <= row["coverage"] <= 0.97


@pytest.mark.parametrize(
    ("metric", "population", "units"),
    [("auc", "BINORMAL", 200), ("logloss", "REQUESTS", 30), ("ndcg@10", "REQUESTS", 30)],
)
def test_coverage_over_200_tasks_is_near(metric: str, population: str, units: int, monkeypatch) -> None:
    monkeypatch.setattr(benchmark, "RESAMPLES", 200)
    monkeypatch.setattr(benchmark, "LARGE", 50_000)
    question = benchmark.Question(metric, getattr(benchmark, population), units)
    # 200 tasks at 95% leave 0.90 to 0.99 in all but one seed of a thousand; the seed is fixed.
    assert 0.90 <= benchmark.measure_coverage(question, tasks=200)["coverage"] <= 0.99


def test_wilson_equals_scipy() -> None:
    from scipy.stats import binomtest

    expected = binomtest(950, 1000).proportion_ci(method="wilson")
    assert benchmark.wilson(950, 1000) == pytest.approx((expected.low, expected.high))


def test_table_goes_between_the_markers(tmp_path: Path) -> None:
    question = benchmark.Question("auc", benchmark.BINORMAL, 200)
    result = {
        "machine": {"processor": "a processor", "python": "3", "numpy": "2"},
        "seed": 1,
        "tasks": 20,
        "resamples": 400,
        "seconds": 2.0,
        "questions": [benchmark.measure_coverage(question, tasks=20)],
        "kinds": [],
    }
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- coverage:begin -->\nold\n<!-- coverage:end -->\nafter\n")
    benchmark.write_docs(result, page)
    text = page.read_text()
    assert text.startswith("before\n<!-- coverage:begin -->\n20 simulated tasks a row")
    assert "| auc drop | 200 rows | delong |" in text
    assert "old" not in text
    assert text.endswith("<!-- coverage:end -->\nafter\n")
