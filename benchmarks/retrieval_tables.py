"""The tables of docs/retrieval.md, made from what benchmarks/retrieval.py measured."""

from pathlib import Path
from typing import Any

from page_section import put

DOCS = Path(__file__).parents[1] / "docs" / "retrieval.md"
Json = dict[str, Any]

#: Figures of papers and their code for the same data and split, ranked among all items.
PUBLISHED = {
    "Amazon Beauty": [
        ("SASRec as commonly reported (one negative)", 0.0605, 0.0318),
        ("SASRec with sampled softmax (eSASRec's study)", 0.0921, 0.0531),
    ]
}


def write_docs(result: Json) -> None:
    """Put the tables between the markers of the page; a part without measurements leaves its table as it is."""
    for part, render in (("quality", quality), ("search", search), ("latency", latency)):
        if result.get(part):
            put(DOCS, part, render(result[part]))


def quality(cases: list[Json]) -> str:
    """Return a table for each case."""
    lines: list[str] = []
    for case in cases:
        k, published = case["k"], PUBLISHED.get(case["name"], [])
        lines += [
            f"**{case['name']}**: {case['what']}. {case['requests']:,} requests of {case['groups']:,} customers, "
            f"{case['items']:,} items.",
            "",
            f"| ranker | recall@{k}, 95% | NDCG@{k}, 95% | {case['rankers'][-1]['name']} is ahead in recall by |",
            "|---|---|---|---|",
        ]
        for row in case["rankers"]:
            gain = "" if row is case["rankers"][-1] else _interval(row["gain"], "+")
            lines.append(f"| {row['name']} | {_interval(row['recall'])} | {_interval(row['ndcg'])} | {gain} |")
        lines += [f"| *published:* {name} | {recall:.4f} | {ndcg:.4f} | |" for name, recall, ndcg in published]
        lines.append("")
    return "\n".join(lines).rstrip()


def search(rows: list[Json]) -> str:
    """Return the table of recall and milliseconds by items."""
    lines = [
        "| items | of | index | effort | recall@100 of the exact | p50, ms | p95, ms | built in, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        effort = "" if row["effort"] is None else f"{row['effort']:,}"
        built = "" if row["index"] == "exact" else f"{row['build_seconds']:.1f}"
        lines.append(
            f"| {row['items']:,} x {row['dim']} | {row['set']} | {row['index']} | {effort} | {row['recall']:.4f} "
            f"| {row['p50_ms']:.3f} | {row['p95_ms']:.3f} | {built} |"
        )
    return "\n".join(lines)


def latency(rows: list[Json]) -> str:
    """Return the table of what one request takes."""
    lines = [
        "| data | model | items | request tower | exact search | both | every item by `forward` | times faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = [row[name]["p50_ms"] for name in ("tower", "search", "both", "every item")]
        cells = " | ".join(f"{value:.3f}" for value in times)
        ratio = times[3] / times[2]
        lines.append(f"| {row['name']} | {row['model']} | {row['items']:,} | {cells} | {ratio:.1f} |")
    return "\n".join(lines)


def _interval(one: Json, sign: str = "") -> str:
    return f"{one['value']:{sign}.4f} [{one['low']:{sign}.4f}, {one['high']:{sign}.4f}]"
