"""A made-up result of the size of the real one: 25 tables, 2.9 M rows; seeded, so that pictures are repeatable."""

from dataclasses import replace
from typing import Any

import numpy as np

from flyweight.cost.latency import summarise
from flyweight.report.data import LayerRow, ReportData, ScoreSample, TableRow, Timing
from flyweight.task.change import Point, Skipped
from flyweight.task.estimate import Estimate
from flyweight.task.measurement import Measurement

#: name, rows, centroids (0: left as it was, 1: one vector for all)
TABLES = (
    ("household_x_product", 1_246_000, 2), ("household_x_type", 664_000, 1), ("store_x_product", 571_000, 4),
    ("household_x_manufacturer", 231_000, 16), ("household_x_category", 96_400, 1), ("product", 68_509, 16),
    ("manufacturer", 6_471, 16), ("package_size", 4_345, 16), ("household", 2_469, 16), ("type", 2_283, 16),
    ("store", 457, 4), ("category", 303, 4), ("department", 31, 0), ("hour", 24, 0), ("age", 7, 0), ("income", 13, 0),
    ("home_ownership", 6, 0), ("marital_status", 4, 0), ("household_size", 6, 0), ("household_comp", 6, 0),
    ("kids_count", 5, 0), ("display", 12, 0), ("mailer", 12, 0), ("brand", 3, 0), ("weekday", 7, 0),
)  # fmt: skip
LAYERS = (
    LayerRow("cross.0.weight", "400 x 400 float32", "400 x 400 int8", 640_000, 161_600),
    LayerRow("deep.0.weight", "256 x 400 float32", "40 x 400 int8", 409_600, 16_160),
    LayerRow("deep.2.weight", "128 x 256 float32", "24 x 40 int8", 131_072, 1_056),
    LayerRow("gate.weight", "16 x 16 float32", "taken out", 1_024, 0),
)
PROOF: dict[str, Any] = {"n": 78_053, "groups": 5_012, "method": "grouped bootstrap, 2,000 resamples"}
SKIPPED = (
    Skipped("tables.department.weight", "31 rows: a codebook would be larger than the table", "encode_tables"),
    Skipped("cross.0", "a linear layer; EncodeTables covers embeddings only", "encode_tables"),
    Skipped("embedding (25 times)", "a gather: it moves bytes and multiplies next to nothing", "macs"),
    Skipped("openvino bf16", "this processor has no AMX or AVX512-BF16 units", "engines"),
)
HARDWARE: dict[str, Any] = {
    "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
    "cores": 2,
    "cores_allowed": 2,
    "memory_bytes": 25_276_502_016,
    "instructions": ["avx2", "avx512f", "avx512_vnni"],
    "system": "Linux x86_64",
    "python": "3.11.7",
    "packages": {"flyweight": "0.1.0", "numpy": "2.4.6", "onnxruntime": "1.32.0", "torch": "2.13.0+cpu"},
}


def make_tables() -> tuple[TableRow, ...]:
    rows = []
    for name, count, centroids in TABLES:
        bits = max(centroids - 1, 0).bit_length()
        coding = f"one {bits}-bit code per row into {centroids} centroids"
        coding = {0: "float32, as it was", 1: "one vector for all rows"}.get(centroids, coding)
        after = count * bits // 8 + centroids * 64 if centroids else count * 64
        rows.append(TableRow(name, count, 16, coding, count * 64, after))
    return tuple(rows)


def make_curve() -> tuple[Point, ...]:
    ratios = (8, 16, 32, 64, 128, 256, 352, 500, 800, 1600)
    drops = (0.0, -0.0001, -0.0001, 0.0, 0.0001, 0.0002, 0.0002, 0.0009, 0.0024, 0.0110)
    points = []
    for ratio, drop in zip(ratios, drops, strict=True):
        wide = 0.00012 + 0.00003 * float(np.log2(ratio))
        estimate = Estimate(drop, drop - wide, drop + wide, n=54_112, method="delong")
        points.append(Point(187_000_000 // ratio, float(ratio), estimate, chosen=ratio == 352))
    return tuple(points)


def make_scores(rows: int = 20_000) -> ScoreSample:
    generator = np.random.default_rng(5)
    logits = generator.normal(-1.9, 2.2, rows)
    targets = (generator.random(rows) < 1 / (1 + np.exp(-logits))).astype(float)
    moved = logits + generator.normal(0.0, 0.25, rows)
    return ScoreSample(1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-moved)), targets)


def make_timings(rounds: int = 200) -> tuple[Timing, ...]:
    generator = np.random.default_rng(6)
    mood = generator.lognormal(0.0, 0.05, rounds) * np.where(generator.random(rounds) < 0.04, 1.7, 1.0)
    timed: tuple[tuple[str, Any, float, bool, str], ...] = (
        ("original, PyTorch", "before", 9.4, False, ""),
        ("original, ONNX Runtime", "exported", 4.2, False, ""),
        ("compressed, ONNX Runtime", "after", 0.79, True, ""),
        ("compressed, OpenVINO", "after", 1.12, False, "bf16 was not tried: this processor has no AMX"),
    )
    found = []
    for name, role, middle, chosen, note in timed:
        samples = middle * mood * generator.lognormal(0.0, 0.06, rounds)
        found.append(Timing(name, role, summarise(samples, candidates=500, threads=2), samples, chosen, note))
    return tuple(found)


def make_measurements(before: int, after: int) -> tuple[Measurement, Measurement]:
    auc, loss = Estimate(0.9283, 0.9262, 0.9303, **PROOF), Estimate(0.2761, 0.2722, 0.2801, **PROOF)
    shift = Estimate(0.0041, 0.0029, 0.0058, **PROOF)
    old = Measurement(before + 1_402_000, before, 512_340, auc, {"logloss": loss, "calibration_error": shift})
    guards = {"logloss": replace(loss, value=0.2764), "calibration_error": replace(shift, value=0.0039)}
    new = Measurement(after + 141_000, after, 512_340, replace(auc, value=0.9281), guards)
    return old, new


def make_result(**changes: Any) -> ReportData:
    tables = make_tables()
    before, after = sum(row.bytes_before for row in tables), sum(row.bytes_after for row in tables)
    old, new = make_measurements(before, after)
    data = ReportData(
        name="complete-journey",
        metric="auc",
        before=old,
        after=new,
        drop=Estimate(0.0002, -0.0002, 0.0006, **PROOF),
        certified=True,
        margin=0.001,
        guard_drops={
            "logloss": Estimate(0.0003, -0.0002, 0.0008, **PROOF),
            "calibration_error": Estimate(-0.0002, -0.0011, 0.0007, **PROOF),
        },
        guard_margins={"logloss": 0.001},
        tables=tables,
        layers=LAYERS,
        curve=make_curve(),
        scores=make_scores(),
        timings=make_timings(),
        speedup=Estimate(11.9, 11.7, 12.2, n=200),
        resident_before=201_300_000,
        resident_after=3_100_000,
        engine="onnxruntime",
        changes=(
            f"encode_tables: 12 of 25 tables as codes, {before / after:.0f}x smaller",
            "recalibrate: logits scaled by 0.981 and shifted by -0.014, folded into the last layer",
        ),
        skipped=SKIPPED,
        notes=("Scores of the bundle agree with PyTorch to 3e-06, in the same order, for ids up to the highest.",),
        hardware=HARDWARE,
        seed=0,
        seconds=196.0,
        look_next=("flyweight inspect demo/ranker.fly", "flyweight verify demo/ranker.fly", "open demo/report.html"),
    )
    return replace(data, **changes)


def make_bare_result() -> ReportData:
    """Nothing but what every result has: no tables, no curve, no scores, no times, no budget."""
    quality = Estimate(0.91, 0.90, 0.92, n=1_797)
    measured = Measurement(4_200, 0, 0, quality, split="validation")
    return ReportData("digits", "accuracy", measured, measured, Estimate(0.0, 0.0, 0.0, n=1_797), certified=False)


def make_hostile_result() -> ReportData:
    """Names that are long, or mean something to HTML, to SVG, to mathtext or to a template."""
    names = ("<script>alert(1)</script>", "price_$_band_$^{x}$", "{{ 7 * 7 }}", "-->]]>&amp;'\"", "x" * 220)
    tables = tuple(TableRow(name, 10**9, 16, f"coding of {name}", 64 * 10**9, 10**8) for name in names)
    skipped = tuple(Skipped(name, f"because of {name}", "macs") for name in names)
    timings = tuple(replace(timing, name=name) for timing, name in zip(make_timings(), names, strict=False))
    return make_result(name=names[0] + names[4], tables=tables, skipped=skipped, timings=timings, changes=names)
