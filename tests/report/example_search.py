"""A made-up search of any number of trials, of the size of a real one; seeded, so that pictures are repeatable."""

from dataclasses import replace
from typing import Any

import numpy as np
from example_result import LAYERS, make_hostile_result, make_result

from flyweight.report.allocation_data import AllocationPart, AllocationRow
from flyweight.report.data import ReportData
from flyweight.report.search_data import PeerPoint, SearchTold, TriedRecipe
from flyweight.task.estimate import Estimate

MARGIN, BEFORE, ROWS = 0.001, 186_600_000, 54_112
RECIPE = (
    "EncodeTables: 12 of 25 tables as codes, 700 times smaller, chosen on validation rows.",
    "Prune: half of the neurons of 3 layers, those that the loss feels least.",
    "Distill: 1 epoch on the scores of the original.",
    "Quantize: 4 layers in int8, 1 left in float32.",
)


def make_search(trials: int = 12, seed: int = 1) -> SearchTold:
    generator = np.random.default_rng(seed)
    tried: list[TriedRecipe] = []
    clock = 6.0
    for number in range(1, trials + 1):
        tried.append(_trial(number, clock, generator, tried))
        clock += tried[-1].seconds + float(generator.uniform(0.1, 0.6))
    tried = _with_front(tried)
    best, turns = None, []
    for trial in tried:
        if trial.inside and (best is None or trial.bytes < best.bytes):
            best = trial
            turns.append((trial.started + trial.seconds, trial.number))
    tried = [replace(trial, chosen=trial is best) for trial in tried]
    stopped = f"its {max(1, round(clock / 60))} minutes were over"
    return SearchTold(tuple(tried), make_peers(), RECIPE, stopped, clock, tuple(turns), run="runs/complete-journey")


def make_peers() -> tuple[PeerPoint, ...]:
    return (
        PeerPoint("original, PyTorch", BEFORE + 3_000, 9.42, Estimate(0.0, 0.0, 0.0, n=ROWS)),
        PeerPoint("original, ONNX Runtime", BEFORE, 4.2, Estimate(0.0, 0.0, 0.0, n=ROWS)),
        PeerPoint("ONNX Runtime dynamic int8", 47_900_000, 3.1, Estimate(0.0007, 0.0004, 0.001, n=ROWS)),
        PeerPoint("OpenVINO NNCF int8", 47_400_000, 2.2, Estimate(0.0312, 0.029, 0.0334, n=ROWS)),
    )


def make_searched_result(trials: int = 12, **changes: Any) -> ReportData:
    data = make_result()
    search = make_search(trials)
    best = next((trial for trial in search.trials if trial.chosen), None)
    if best is not None:
        data = replace(data, after=replace(data.after, bytes=best.bytes, table_bytes=best.table_bytes))
    return replace(data, search=search, seconds=search.seconds + 41.0, layers=LAYERS, **changes)


def make_hostile_search() -> ReportData:
    """Words that mean something to HTML, to SVG, to a shell or to a template, and numbers that are missing or odd."""
    names = ("<script>alert(1)</script>", "price_$_band_$^{x}$", "{{ 7 * 7 }}", "-->]]>&amp;'\"\n#010203", "x" * 220)
    search = make_search(12)
    odd = [TriedRecipe(100 + place, name, "failed", name, seconds=0.0) for place, name in enumerate(names)]
    far = replace(search.trials[0], number=200, drop=Estimate(0.9, 0.8, 1.0, n=9), latency_ms=None, speedup=None)
    trials = tuple(replace(one, words=names[place % 5]) for place, one in enumerate(search.trials))
    peers = tuple(replace(one, name=name) for one, name in zip(search.peers, names, strict=False))
    rows = tuple(
        AllocationRow(name, "table", 10**9, (AllocationPart(0.5, name, 1.0), AllocationPart(0.5, names[0], 64.0)))
        for name in names
    )
    told = replace(search, trials=(*trials, *odd, far), peers=peers, recipe=names, stopped=names[0], run=names[3])
    return replace(make_hostile_result(), search=told, allocation=rows)


def _trial(number: int, clock: float, generator: np.random.Generator, earlier: list[TriedRecipe]) -> TriedRecipe:
    tables = float(np.round(np.exp(generator.uniform(np.log(8), np.log(2500)))))
    units = float(generator.choice([0.0, 0.25, 0.5, 0.75]))
    epochs = int(generator.choice([0, 1, 1, 2]))
    bits = str(generator.choice(["float32", "int8", "int8"]))
    words = [f"tables {tables:,.0f}x"] + [f"{units:.0%} of units off"] * (units > 0)
    words += [f"{epochs} epoch{'s' * (epochs > 1)}"] * (epochs > 0) + [bits] * (bits != "float32")
    plain = {"number": number, "words": ", ".join(words), "started": clock}
    chance = generator.random()
    if chance < 0.05:
        reason = "RuntimeError: mat1 and mat2 shapes cannot be multiplied (500x256 and 128x1)"
        return TriedRecipe(**plain, state="failed", reason=reason, seconds=float(generator.uniform(0.5, 2)))
    if earlier and chance < 0.35:
        beaten = int(generator.integers(1, number))
        lost = chance / 20
        reason = f"no smaller and no quicker than trial {beaten}, which holds"
        reason = reason if chance < 0.2 else f"still loses {lost:.4f} after learning, {lost / MARGIN:.0f} margins"
        return TriedRecipe(**plain, state="cut", reason=reason, seconds=float(generator.uniform(1, 4)))
    table_bytes = int(185_200_000 / tables)
    size = table_bytes + int(1_400_000 * (1 - units) * (0.27 if bits == "int8" else 1)) + 40_000
    time = 0.35 + 1.1 * (1 - 0.8 * units) * (0.45 if bits == "int8" else 1) + float(generator.uniform(0, 0.1))
    drop = 1.1e-9 * tables**2 + 0.0022 * units**2 / (1 + epochs) + 0.0002 * (bits == "int8") - 0.0001 * epochs
    drop += float(generator.normal(0, 0.00008))
    wide = 0.0002 + 0.1 * abs(drop)
    return TriedRecipe(
        **plain, state="done", seconds=float(generator.lognormal(1.8 + 0.3 * epochs, 0.3)), bytes=size,
        table_bytes=table_bytes, macs=int(512_340 * (1 - units)), latency_ms=time, speedup=9.42 / time,
        engine="onnxruntime", drop=Estimate(drop, drop - wide, drop + wide, n=ROWS), inside=drop + wide <= MARGIN,
    )  # fmt: skip


def _with_front(tried: list[TriedRecipe]) -> list[TriedRecipe]:
    measured = [trial for trial in tried if trial.state == "done"]

    def beaten(one: TriedRecipe, other: TriedRecipe) -> bool:
        mine, theirs = ((t.bytes, t.latency_ms, t.drop.value) for t in (one, other))
        return mine != theirs and all(b <= a for a, b in zip(mine, theirs, strict=True))

    return [
        replace(trial, front=trial.state == "done" and not any(beaten(trial, other) for other in measured))
        for trial in tried
    ]
