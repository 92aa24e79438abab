"""Does a lookup cost more when the table is larger? 500 rows of a coded table of 10^4 to 10^8 rows, beside its peers.

    python benchmarks/lookup.py            # two minutes on one core, 6 GB of memory; writes JSON and the docs

Tables are generated: one 4-bit code a row into 16 codewords of 16 values. All calls of a group run in turns in one
process. Every call gets 500 random ids that no call before it had, so that what is not in the caches is really fetched.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.cost.hardware import describe_hardware
from flyweight.cost.latency import time_interleaved
from flyweight.engines.export import export_onnx
from flyweight.engines.operators import operator_counts
from flyweight.engines.registry import ENGINES
from flyweight.tables.coded_embedding import CodedEmbedding
from flyweight.tables.coded_table import CodedTable
from flyweight.tables.coding import CodedBand, Coding
from flyweight.task.measurement import Latency
from page_section import put

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "lookup.json"
DOCS = HERE.parent / "docs" / "engines.md"
DIM, IDS, THREADS, REPEATS, WARMUP = 16, 500, 1, 1000, 50
SMALL, LARGE, GOAL = 10**4, 10**8, 1.5
SIZES = (SMALL, 10**6, LARGE)
WHOLE_SIZES = (SMALL, 10**5, 10**6)
FLOOR = "500 bytes fetched, nothing computed (`numpy.take`)"

Ids = NDArray[np.int64]
Lookup = Callable[[Ids], object]


@dataclass(frozen=True)
class Call:
    """One lookup to be timed: a column of the table by `rows`."""

    what: str
    rows: int
    bytes: int
    lookup: Lookup


class Float32(nn.Module):
    """Rows as they are."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Embedding.from_pretrained(rows)

    def forward(self, input: Tensor) -> Tensor:
        vectors: Tensor = self.rows(input)
        return vectors


def coded_band(rows: int) -> CodedBand:
    draw = torch.Generator().manual_seed(rows)
    codes = torch.randint(0, 256, (rows // 2,), dtype=torch.uint8, generator=draw)
    return CodedBand(0, rows, Coding(bits=4), codes, torch.randn(1, 1, 16, DIM, generator=draw).half())


def exported_calls(what: str, model: nn.Module, rows: int, folder: Path, check: Callable[[Ids], Any]) -> list[Call]:
    """The model in each engine; every engine must give the exact rows, the highest ids included."""
    exported = export_onnx(model, {"input": torch.arange(5)}, folder, name=f"{what.split()[0]}_{rows}")
    ids = np.concatenate([np.arange(100), np.arange(rows - 100, rows), fresh_ids(rows, 7)])
    calls = []
    for name, engine in ENGINES.items():
        prepared = engine.prepare(exported.path, threads=THREADS)
        np.testing.assert_array_equal(prepared.run({"input": ids}), check(ids), err_msg=f"{name}, {rows} rows")
        operators = sum(operator_counts(exported.path).values())
        title = f"{what}, {name} ({operators} operator{'s' if operators > 1 else ''})"
        calls.append(Call(title, rows, exported.bytes, lambda ids, run=prepared.run: run({"input": ids})))
    return calls


def quantised_bag(bits: int, rows: int) -> Call:
    """PyTorch's row-wise quantised bags: a scale and an offset with each row. Large tables repeat 10^6 rows."""
    kind = {8: "byte", 4: "4bit", 2: "2bit"}[bits]
    some = torch.randn(min(rows, 10**6), DIM, generator=torch.Generator().manual_seed(bits))
    packed = getattr(torch.ops.quantized, f"embedding_bag_{kind}_prepack")(some)
    packed = packed.repeat(-(-rows // len(packed)), 1)
    run = getattr(torch.ops.quantized, f"embedding_bag_{kind}_rowwise_offsets")
    offsets = torch.arange(IDS)
    return Call(
        f"int{bits} rows with scale, torch.ops.quantized",
        rows,
        packed.numel(),
        lambda ids: run(packed, torch.from_numpy(ids), offsets),
    )


def whole_table(rows: int) -> Call:
    """Weight-only quantisation of an embedding without a kernel of its own: all rows are made, then 500 taken."""
    values = torch.randint(-128, 128, (rows, DIM), dtype=torch.int8)
    scales = torch.rand(rows, 1)
    return Call(
        "int8 table made float32 whole in each call, torch",
        rows,
        values.numel() + 4 * rows,
        lambda ids: (values.to(torch.float32) * scales)[torch.from_numpy(ids)],
    )


def floor(rows: int, band: CodedBand) -> Call:
    codes = band.codes.numpy()
    return Call(FLOOR, rows, codes.nbytes, lambda ids: codes.take(ids >> 1))


def lookup_calls(folder: Path) -> list[Call]:
    calls = []
    for rows in SIZES:
        band = coded_band(rows)
        calls.append(floor(rows, band))
        module = CodedEmbedding(CodedTable((band,)))
        calls += exported_calls(
            "one 4-bit code a row", module, rows, folder, lambda ids, b=band: b.decode(torch.from_numpy(ids)).numpy()
        )
        calls += [quantised_bag(bits, rows) for bits in (8, 4, 2)]
        if rows < LARGE:  # 6.4 GB as float32
            floats = torch.randn(rows, DIM)
            calls += exported_calls(
                "float32 rows", Float32(floats), rows, folder, lambda ids, f=floats: f[torch.from_numpy(ids)].numpy()
            )
    return calls


def whole_calls(folder: Path) -> list[Call]:
    """Apart from the others, whose caches it would empty; one of them runs along for comparison."""
    band = coded_band(WHOLE_SIZES[-1])
    module = CodedEmbedding(CodedTable((band,)))
    ours = exported_calls(
        "one 4-bit code a row, beside whole tables", module, band.stop, folder,
        lambda ids: band.decode(torch.from_numpy(ids)).numpy(),
    )  # fmt: skip
    return [whole_table(rows) for rows in WHOLE_SIZES] + ours


def fresh_ids(rows: int, seed: int) -> Ids:
    return np.random.default_rng(seed).integers(0, rows, IDS)


def timed(calls: list[Call], repeats: int) -> list[tuple[Call, Latency]]:
    def caller(place: int, call: Call) -> Callable[[], object]:
        drawn = np.random.default_rng(place).integers(0, call.rows, (repeats + WARMUP, IDS))
        batches: Iterator[Ids] = iter(drawn)
        return lambda: call.lookup(next(batches))

    callers = {str(place): caller(place, call) for place, call in enumerate(calls)}
    latencies = time_interleaved(callers, candidates=IDS, threads=THREADS, repeats=repeats, warmup=WARMUP)
    return [(call, latencies[str(place)]) for place, call in enumerate(calls)]


def growth(results: list[tuple[Call, Latency]], what: str) -> float | None:
    """Median at 10^8 rows by median at 10^4."""
    medians = {call.rows: latency.p50 for call, latency in results if call.what == what}
    return medians[LARGE] / medians[SMALL] if {SMALL, LARGE} <= set(medians) else None


def table(results: list[tuple[Call, Latency]]) -> str:
    """Microseconds by rows, one line for each kind of lookup."""
    sizes = sorted({call.rows for call, _ in results})
    heads = [f"10^{len(str(rows)) - 1} rows" for rows in sizes]
    lines = [
        f"| {IDS} random rows of {DIM} values, us | {' | '.join(heads)} | 10^8 / 10^4 | bytes a row at most |",
        "|---|" + "---|" * (len(sizes) + 2),
    ]
    for what in dict.fromkeys(call.what for call, _ in results):
        own = {call.rows: (call, latency) for call, latency in results if call.what == what}
        cells = [
            f"{1000 * own[rows][1].p50:.1f} [{1000 * own[rows][1].p50_low:.1f}, {1000 * own[rows][1].p50_high:.1f}]"
            if rows in own
            else ""
            for rows in sizes
        ]
        ratio = growth(results, what)
        call = own[max(own)][0]
        lines.append(
            f"| {what} | {' | '.join(cells)} | {f'{ratio:.2f}' if ratio else ''} | {call.bytes / call.rows:.3g} |"
        )
    return "\n".join(lines)


def render(results: list[tuple[Call, Latency]], hardware: dict[str, Any]) -> None:
    note = (
        f"\nMedian of {REPEATS} calls with its 95% interval, {THREADS} thread, all lines in turns in one process (the "
        f"lines on whole tables in a second one). {hardware['cpu']}, {hardware['cores']} cores; "
        + ", ".join(f"{name} {hardware['packages'][name]}" for name in ("onnxruntime", "openvino", "torch"))
        + ".\n"
    )
    put(DOCS, "lookup", f"{table(results)}\n{note}")


def main() -> None:
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        results = timed(lookup_calls(Path(folder)), REPEATS) + timed(whole_calls(Path(folder)), REPEATS // 5)
    hardware = describe_hardware()
    rows = [{"what": call.what, "rows": call.rows, "bytes": call.bytes, **asdict(took)} for call, took in results]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"hardware": hardware, "ids": IDS, "dim": DIM, "results": rows}, indent=1) + "\n")
    render(results, hardware)
    print(table(results))
    for what in dict.fromkeys(call.what for call, _ in results):
        ratio = growth(results, what)
        if ratio and "code a row" in what:
            print(f"{what}: {ratio:.2f}x from 10^4 to 10^8 rows, goal {GOAL}: {'met' if ratio <= GOAL else 'missed'}")


if __name__ == "__main__":
    main()
