"""The default ranker trained and recovered by one process and by two: JSON, and tables in docs/sharded_training.md.

    python benchmarks/sharded_training.py [case ...]     # no case: the tables are made from what is there

Cases: plain, one, row, table (the ranker trained for one epoch from the zoo's own start: by PyTorch alone, and by this
code with tables in one process, by rows and by table in two), recovery-1, recovery-2 (codebooks and dense layers of the
ranker, its tables coded and pruned by 95%, learn from it for a tenth of an epoch), tables-1, tables-2 (the ranker,
pruned by half, recovers for a fifth with its tables sharded). One thread a process. A drop of AUC is paired, against
the case named first, on the test rows.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flyweight.cost.hardware import describe_hardware, package_versions
from flyweight.distillation.training import Training as Taught
from flyweight.parallel.cluster.recovery import recover_together
from flyweight.parallel.launch import run_ranks
from flyweight.parallel.sharded.lesson import Lesson, ShardedTraining, lesson_of
from flyweight.parallel.sharded.rank_memory import forget_peak, peak_bytes
from flyweight.parallel.sharded.training import train_sharded
from flyweight.pruning.prune import Prune
from flyweight.quality.intervals import paired_drop
from flyweight.quality.measure import measure
from flyweight.tables.encode_tables import EncodeTables
from flyweight.task.task import Task
from flyweight.zoo import complete_journey as journey
from flyweight.zoo.cache import cache_folder
from flyweight.zoo.models.dcnv2 import DCNv2
from flyweight.zoo.tasks import complete_journey
from flyweight.zoo.training import Training, train
from page_section import put

RESULTS = Path(__file__).parent / "results" / "sharded_training.json"
DOCS = Path(__file__).parent.parent / "docs" / "sharded_training.md"
PLACED = {"one": (1, "auto"), "row": (2, "row"), "table": (2, "table")}
#: Each case, and the one that it is held against.
AGAINST = {
    "plain": "plain", "one": "plain", "row": "plain", "table": "plain",
    "recovery-1": "recovery-1", "recovery-2": "recovery-1", "tables-1": "tables-1", "tables-2": "tables-1",
}  # fmt: skip
EPOCHS, BITS = {"codebooks": 0.1, "tables": 0.2}, 2.0
Json = dict[str, Any]


def untrained() -> nn.Module:
    """Return the ranker as the zoo starts it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Training().seed)
        return DCNv2(journey.load().vocabulary)


def start() -> Lesson:
    """Return the training of the zoo's ranker from its start, in the zoo's batches."""
    data, settings = journey.load(), Training()
    batches = data.train.of_size(settings.batch_rows).with_keys()
    return Lesson(untrained(), lambda: ((*one, None) for one in batches), len(batches), _logloss)


def _logloss(outputs: torch.Tensor, target: torch.Tensor, said: torch.Tensor | None) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(outputs, target)


def plain(rank: int, ranks: int, folder: Path) -> None:
    """Train as the zoo does, in a process of its own."""
    model, data = untrained(), journey.load()
    before = peak_bytes()
    forget_peak()
    began = time.monotonic()
    train(model, data.train, Training())
    told = {"seconds": time.monotonic() - began, "peak_start": before, "peak": peak_bytes()}
    torch.save(told, folder / "told.pt")
    torch.save(model.state_dict(), folder / "state.pt")


def trained_plainly() -> tuple[nn.Module, Json]:
    """Return the ranker as PyTorch alone trains it, and what that took."""
    left = run_ranks(plain, 1)
    model = untrained()
    model.load_state_dict(left["state"])
    told = left["told"]
    tables = sum(table.weight.nbytes for table in model.tables.values())
    memory = {"tables": tables, "optimizer": None, "peak_start": told["peak_start"], "peak": told["peak"]}
    return model.eval(), {"seconds": told["seconds"], "memory": [memory]}


def sharded(make: Any, ranks: int, by: str, **settings: Any) -> tuple[nn.Module, Json]:
    """Return a model trained with its tables over processes, and what that took."""
    done = train_sharded(make, ranks=ranks, by=by, settings=ShardedTraining(**settings))  # type: ignore[arg-type]
    assert done.model is not None
    print(done.plan, flush=True)
    return done.model, {
        "seconds": done.seconds,
        "memory": [vars(one) for one in done.memory],
        "plan": str(done.plan).splitlines()[0],
        "losses": [done.losses[0], float(np.mean(done.losses[-100:]))],
    }


def coded() -> tuple[Task, nn.Module]:
    """Return the ranker's task, and the ranker with coded tables, 95% pruned; coded once and kept in a file."""
    task = complete_journey()
    kept = cache_folder() / f"sharded-training-coded-{BITS:g}.pt"
    if not kept.exists():
        torch.save(EncodeTables(bits_per_row=BITS).apply(task).model, kept)
    smaller = task.with_model(torch.load(kept, weights_only=False))
    return task, Prune(ratio=0.95, saliency="magnitude").apply(smaller).model


def pruned() -> Lesson:
    """Return the recovery, tables and all, of the ranker with half of its layers' units."""
    task = complete_journey()
    return lesson_of(task.with_model(Prune(ratio=0.5, saliency="magnitude").apply(task).model), recover=True)


def recovered(ranks: int) -> tuple[nn.Module, Json]:
    """Return the coded ranker, taught by so many processes, and what that took."""
    task, model = coded()
    done = recover_together(task, model, Taught(epochs=EPOCHS["codebooks"], lr=0.001, shards=4), ranks=ranks)
    stand = {"before": done.before.metric, "after": done.after.metric}
    told = {"seconds": done.seconds, "lr": done.lr, "validation": stand, "notes": list(done.notes)}
    return done.model, {**told, "weights": weights_hash(done.model)}


def weights_hash(model: nn.Module) -> str:
    """Return a hash of all that a model holds, so that equal to the last bit can be said."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def run(case: str, task: Task) -> Json:
    """Do one case and return its row."""
    if case == "plain":
        model, told = trained_plainly()
    elif case in PLACED:
        model, told = sharded(start, *PLACED[case], epochs=1, batch_rows=Training().batch_rows)
    elif case.startswith("recovery-"):
        model, told = recovered(int(case[-1]))
    else:
        model, told = sharded(pruned, int(case[-1]), "auto", epochs=EPOCHS["tables"], batch_rows=512, table_rate=0.0005)
    scores = task.scores("test", model)
    kept = cache_folder() / f"sharded-training-scores-{AGAINST[case]}.npy"
    if case == AGAINST[case]:
        np.save(kept, scores.outputs)
    drop = paired_drop(task.spec, np.load(kept), scores.outputs, scores.targets, scores.groups)
    auc = measure(task.spec, scores.outputs, scores.targets, scores.groups)
    told |= {"auc": auc, "drop": {"value": drop.value, "low": drop.low, "high": drop.high, "n": drop.n}}
    return {"case": case, **told, "load": os.getloadavg()[0]}


def main(cases: list[str]) -> None:
    """Do the cases, and write JSON and tables."""
    found: Json = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}}
    if cases:
        torch.set_num_threads(1)
        task = complete_journey()
        for case in cases:
            found["cases"][case] = run(case, task)
            print(json.dumps(found["cases"][case], indent=1), flush=True)
            versions = package_versions(("torch", "torchrec", "fbgemm-gpu-cpu"))
            found |= {"hardware": describe_hardware(), "versions": versions}
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    put(DOCS, "sharded-training", training_table(found))
    put(DOCS, "sharded-recovery", recovery_table(found))


def _drop(row: Json) -> str:
    drop = row["drop"]
    return f"{drop['value']:+.5f} [{drop['low']:+.5f}, {drop['high']:+.5f}]"


def _peaks(row: Json) -> str:
    return ", ".join(f"{one['peak'] / 1e6:,.0f}" for one in row.get("memory", ()))


def training_table(found: Json) -> str:
    """Return what training gave: AUC, its drop against PyTorch alone, and what each rank held."""
    names = {"plain": "one, PyTorch alone", "one": "one", "row": "two, by rows", "table": "two, by table"}
    heads = ("processes", "test AUC", "drop against PyTorch alone, 95%", "tables a rank, MB", "optimiser, MB")
    lines = [f"| {' | '.join(heads)} | peak, MB |", "|---|---|---|---|---|---|"]
    for case, name in names.items():
        if case not in found["cases"]:
            continue
        row = found["cases"][case]
        held, kept = (
            ", ".join(f"{one[key] / 1e6:,.1f}" for one in row["memory"] if one[key] is not None)
            for key in ("tables", "optimizer")
        )
        drop = "" if case == "plain" else _drop(row)
        lines.append(f"| {name} | {row['auc']:.4f} | {drop} | {held} | {kept} | {_peaks(row)} |")
    return "\n".join(lines)


def recovery_table(found: Json) -> str:
    """Return what recovery gave by one process and by two."""
    lines = ["| learns | processes | test AUC | drop against one, 95% | peak, MB |", "|---|---|---|---|---|"]
    for case, name in {"recovery": "codebooks", "tables": "tables"}.items():
        for ranks in (1, 2):
            if f"{case}-{ranks}" not in found["cases"]:
                continue
            row = found["cases"][f"{case}-{ranks}"]
            drop = "" if ranks == 1 else _drop(row)
            lines.append(f"| {name} | {ranks} | {row['auc']:.4f} | {drop} | {_peaks(row)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
