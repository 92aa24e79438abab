"""Ten thousand spoilt bundles: each is refused with a BundleError or reads as sound; no crash, no hang, no flood."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import odd_models
import pytest
import tiny_models

from flyweight.bundle.manifest import InputEntry
from flyweight.bundle.samples import Sample
from flyweight.bundle.write import Contents, write_bundle

WORKER = Path(__file__).with_name("fuzz_worker.py")
COUNT = 10_000
WORKERS = 2
#: A worker holds NumPy, ONNX Runtime and a bundle of 5 KB; what a hostile bundle makes it take more must stay small.
MAX_PEAK = 600 * 2**20
MAX_SECONDS = 5.0  # of processor time, for one bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "ranker.fly", tiny_models.contents(folder / "ranker"))
    inputs = {"x": InputEntry(role="sample", dtype="float32", shape=[4])}
    sample = Sample({"x": np.ones((2, 4), np.float32)}, np.ones(2, np.float32))
    for name in odd_models.GRAPHS:
        size = tiny_models.export(folder / name, odd_models.build(name), outside=False)
        evidence = tiny_models.evidence(size, inputs=inputs)
        write_bundle(
            folder / f"{name}.fly", Contents(folder / name, evidence, tiny_models.timing(), [sample], "<html>")
        )
    return folder


def fuzz(bundles: Path, count: int, seconds: float, first_seed: int = 0) -> dict[str, int]:
    """Run workers side by side and return what became of how many bundles."""
    share = -(-count // WORKERS)
    seeds = range(first_seed, first_seed + WORKERS)
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(bundles), str(seed), str(share), "--engine", "0.25"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in seeds
    ]
    total: dict[str, int] = {}
    end = time.monotonic() + seconds
    try:
        for seed, worker in zip(seeds, workers, strict=True):
            out, err = worker.communicate(timeout=end - time.monotonic())
            at = (bundles / f"at_{seed}").read_text()
            assert worker.returncode == 0, f"seed {seed} ended with {worker.returncode} at mutation {at}: {err[-2000:]}"
            record = json.loads(out.splitlines()[-1])
            assert record["peak_bytes"] < MAX_PEAK, record
            assert record["slowest_s"] < MAX_SECONDS, record
            for kind, times in record["seen"].items():
                total[kind] = total.get(kind, 0) + times
    finally:
        for worker in workers:
            worker.kill()
    return total


@pytest.mark.timeout(520)
def test_spoilt_bundles_are_refused_or_sound(bundles: Path) -> None:
    seen = fuzz(bundles, COUNT, seconds=500)
    assert seen["refused"] + seen["read"] >= COUNT
    assert seen["refused spoil_graph"] > 1000  # the checks behind the hashes were reached ...
    assert seen["read spoil_graph"] > 100  # ... and are not so strict that nothing passes
    assert seen["scored"] > 100


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_more_spoilt_bundles_are_refused_or_sound(bundles: Path) -> None:
    seen = fuzz(bundles, 100_000, seconds=2900, first_seed=1000)
    assert seen["refused"] + seen["read"] >= 100_000


def test_the_bundles_that_are_spoilt_are_sound_and_score(bundles: Path) -> None:
    from flyweight.bundle.load import load

    for path in sorted(bundles.glob("*.fly")):
        with load(path, engine="onnxruntime", threads=1) as ranker:
            inputs = dict(ranker.bundle.samples[0].inputs)
            assert np.isfinite(ranker.predict(inputs)).all(), path.name


def test_a_worker_says_what_it_found(bundles: Path) -> None:
    """The fuzz would notice: a reader that lets any error through ends the worker."""
    code = f"""
import sys; sys.path.insert(0, {str(WORKER.parent)!r}); sys.argv = ['', {str(bundles)!r}, '99', '50']
import fuzz_worker
def broken(path): raise ValueError('raw')
fuzz_worker.read_bundle = broken
fuzz_worker.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ValueError: raw" in done.stderr
