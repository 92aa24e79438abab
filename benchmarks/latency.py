"""One user against 100, 500 and 2,000 candidates: ours, the original and the best peers, all timed in turns.

python benchmarks/latency.py --case din mlp      # writes results/latency_din.json ... and the tables in docs/latency.md
python benchmarks/latency.py                     # every model of the zoo

Each contender is a file or a module; quality is its own on test data. Peers score a flat batch, the request's fields
repeated for every candidate, as they must; ours take them once. `cold_start` is measured in fresh processes.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch

import dense_peers
import flyweight as fw
import latency_tables
from dense_against import quantizers
from dense_harness import Case, Contender, Json, compressed, run_case
from dense_running import Running, open_onnx
from flyweight.cost.sizes import bytes_on_disk
from flyweight.planning.artefact import make_artefact
from flyweight.planning.requests import sample_requests
from flyweight.quantization.quantize import Quantize
from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.rules import RULES
from flyweight.task.step import Step
from flyweight.zoo.cache import cache_folder
from flyweight.zoo.tasks import ZOO

MARGIN = 0.001
ROWS = (100, 500, 2_000)
ENGINES = ("onnxruntime", "openvino", "openvino-bf16", "torch", "inductor")
#: A bundle's first score must come within half a second of starting to load it, without PyTorch.
COLD_STARTS = 7
Make = Callable[[fw.Task], tuple[Step, ...]]


def contenders(steps: tuple[Step, ...], task: fw.Task, seed: int) -> Iterator[Contender]:
    """Yield ours, rewritten alone and with everything, and the peers on the uncompressed model."""
    everything = compressed("Flyweight, everything", steps, MARGIN)
    yield Contender(everything.name, "ours", everything.make, _open, everything.key)
    yield Contender("Flyweight, rewritten alone", "ours", rewritten_alone, _open, key=_rules())
    yield compiled()
    yield from quantizers(task)
    yield torchao_compiled()


def _open(folder: Path, threads: int) -> Mapping[str, Running]:
    return open_onnx(folder, threads, ENGINES)


def _rules() -> str:
    return " ".join(rule.name for rule in RULES)


def rewritten_alone(task: fw.Task, folder: Path) -> Json:
    """Export the original rewritten, not compressed: what computing each thing once gives by itself."""
    samples = sample_requests(task)
    inputs, _, _ = next(task.batches("validation"))
    real = {name: inputs[name][:256] for name in samples[0]}
    found = hoist(task.model, task.inputs, [real, *samples], RULES)
    rows = len(next(iter(samples[0].values())))
    made = make_artefact(task.model, samples, rows, folder, served=found.model)
    return {
        "bytes": made.exported.bytes,
        "macs": made.macs.total,
        "rewrites": {one.rule: one.times for one in found.done},
        "refused": [str(one) for one in (*found.refused, *found.undone)],
    }


def compiled() -> Contender:
    """Return the original under `torch.compile`."""
    name = "torch.compile"

    def make(task: fw.Task, folder: Path) -> Json:
        return {"bytes": dense_peers.contender_of_module(name, task.model).bytes, "macs": None, "engine": "compiled"}

    return Contender(name, "peer", make, partial(_reopened, name, torchao=False))


def torchao_compiled() -> Contender:
    """Return torchao's int8 linear layers under `torch.compile`, as its authors advise."""
    name = "torchao int8, torch.compile"

    def make(task: fw.Task, folder: Path) -> Json:
        module = dense_peers.torchao_int8(task.model)
        return {"bytes": dense_peers.contender_of_module(name, module).bytes, "macs": None, "engine": "compiled"}

    return Contender(name, "peer", make, partial(_reopened, name, torchao=True))


def _reopened(name: str, folder: Path, threads: int, *, torchao: bool) -> Mapping[str, Running]:
    model = _CASES_RUNNING[folder.parent.parent.name].model
    module = dense_peers.torchao_int8(model) if torchao else model
    return {"compiled": dense_peers.contender_of_module(name, module, compiled=True)}


#: The task of each case that is running: a module cannot be opened from a folder.
_CASES_RUNNING: dict[str, fw.Task] = {}


def case_of(name: str, task_name: str, steps: tuple[Step, ...], seconds: float = Case.seconds) -> Case:
    """Return the case of a zoo task."""

    def task(seed: int) -> fw.Task:
        _CASES_RUNNING[name] = ZOO[task_name]()
        return _CASES_RUNNING[name]

    return Case(
        name=name,
        title=task_name,
        goal="",
        task=task,
        contenders=partial(contenders, steps),
        rows=ROWS,
        margin=MARGIN,
        family="latency",
        engines=ENGINES,
        seconds=seconds,
    )


def _everything(ratio: float, macs: int) -> tuple[Step, ...]:
    return (fw.EncodeTables(ratio=ratio, seed=0), fw.Factorize(max_macs=macs, seed=0), Quantize(seed=0))


#: An MLP of 512 and 256 units is far wider than what it has learned: 32 and 16 units are taught to say the same.
_THIN = (
    fw.EncodeTables(ratio=400, seed=0),
    fw.Prune(ratio=0.9375, scope="layer", kinds=("neurons",), multiple=16, seed=0),
    fw.Distill(epochs=2, lr=0.01, seed=0),
    fw.Factorize(max_macs=4_500, seed=0),
)

CASES = {
    "din": case_of("din", "complete-journey-din", (fw.EncodeTables(ratio=100, seed=0),)),
    "mlp": case_of("mlp", "complete-journey-mlp", _THIN),
    "dcnv2": case_of("dcnv2", "complete-journey", _everything(600, 28_000)),
    "dlrm": case_of("dlrm", "complete-journey-dlrm", _everything(400, 28_000)),
    "deepfm": case_of("deepfm", "complete-journey-deepfm", _everything(400, 20_000)),
    "twotower": case_of("twotower", "movielens-1m", (fw.EncodeTables(ratio=10, seed=0),)),
    # A flat call reads the history anew for each row, and takes half a second for 2,000.
    "sasrec": case_of("sasrec", "beauty-candidates", (fw.EncodeTables(ratio=8, seed=0), Quantize(seed=0)), 100.0),
}

_COLD = """
import json, sys, time
start = time.perf_counter()
import flyweight as fw
ranker = fw.load(sys.argv[1], threads=1)
scores = ranker.predict(ranker.bundle.samples[0].inputs)
print(json.dumps({"seconds": time.perf_counter() - start, "torch": "torch" in sys.modules, "engine": ranker.engine}))
"""


def cold_start(bundle: Path) -> Json:
    """Return the seconds from starting to import until the first scores, in fresh processes; median of COLD_STARTS."""
    told = []
    for _ in range(COLD_STARTS):
        run = subprocess.run([sys.executable, "-c", _COLD, str(bundle)], capture_output=True, text=True, check=True)
        told.append(json.loads(run.stdout.splitlines()[-1]))
    seconds = sorted(one["seconds"] for one in told)
    return {"median": statistics.median(seconds), "most": seconds[-1], "runs": len(told)} | {
        key: told[0][key] for key in ("torch", "engine")
    }


def note_cold_start(name: str) -> None:
    """Add the cold start of a case's bundle, read with warm disk caches, to its JSON."""
    path = latency_tables.path_of(name)
    kept = json.loads(path.read_text())
    bundles = sorted((cache_folder() / "latency" / name / "0").glob("*/model.fly"))
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(shutil.copytree(bundles[-1], Path(folder, "model.fly")))
        kept["cold_start"] = cold_start(copied) | {"bytes": bytes_on_disk(copied)}
    path.write_text(json.dumps(kept, indent=1) + "\n")


def main() -> None:
    """Run the cases asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--most", type=int, help="the first so many contenders of a case only")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    for name in wanted.case:
        run_case(CASES[name], [0], wanted.most)
        note_cold_start(name)
        latency_tables.main()


if __name__ == "__main__":
    main()
