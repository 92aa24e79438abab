"""The tables of docs/tables.md that say how well damages are predicted, made from the benchmark's JSON."""

from pathlib import Path
from typing import Any

from page_section import put

DOCS = Path(__file__).parent.parent / "docs" / "tables.md"
#: The sets of choices, in words.
SETS = {
    "spread": "64x to 2,000x smaller, spread evenly",
    "even": "all 400x smaller, within 3%",
    "near": "as even, each band with 30% one coding away from the first plan",
}
Json = dict[str, Any]


def render(result: Json) -> str:
    """Return the Markdown of a result: the sets of choices by their words."""
    names = list(result["spread"]["spearman"])
    lines = [
        f"{result['task']}: rank correlation of predicted and true rise of the validation loss over random "
        "choices, and its 95% interval.",
        "",
        f"| choices | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
    ]
    for part, words in SETS.items():
        found = result[part]["spearman"]
        cells = [f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]" for one in (found[name] for name in names)]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    lines += ["", "Plans made without a trial, by the sum of single damages and by the first prediction:", ""]
    ways = [name for name in result["planned"][0] if name != "ratio"]
    for key, title in (("validation_rise", "rise of validation loss"), ("drop", "drop in AUC, test data")):
        lines += [f"| {title} | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
        for row in result["planned"]:
            values = [row[name][key] for name in ways]
            cells = [shown(one) if isinstance(one, dict) else f"{one:+.4f}" for one in values]
            lines.append(f"| {row['ratio']:,.0f}x smaller | {' | '.join(cells)} |")
        lines.append("")
    pairs = result["pairs"]
    lines += [
        f"Two large tables emptied together, {len(pairs['pairs'])} pairs: what they cost beyond both costs alone has",
        f"the predicted sign in {pairs['same_sign']:.0%}; of it {pairs['median_share']:.2f} is predicted (median).",
    ]
    lines += ["", "A plan beside one coding for every large band, test data:", ""]
    lines += ["| one coding | table bytes | its drop in AUC | bytes of the plan | its drop | better by |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in result["plan"]:
        one, plan = row["one coding"], row["plan"]
        cells = [f"one {row['bits']}-bit code", f"{one['table_bytes']:,} ({one['ratio']:.0f}x)", shown(one["drop"])]
        cells += [f"{plan['table_bytes']:,} ({plan['ratio']:.0f}x)", shown(plan["drop"]), shown(row["plan_better_by"])]
        lines.append(f"| {' | '.join(cells)} |")
    machine = result["hardware"]
    lines += ["", f"Made by `benchmarks/auto_prediction.py`, seed {result['seed']}: {machine['cpu']}, "]
    lines[-1] += f"torch {machine['packages']['torch']}."
    return "\n".join(lines)


def shown(one: Json) -> str:
    """Return "+0.0001 [-0.0005, +0.0008]"."""
    return f"{one['value']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"


def write_docs(result: Json) -> None:
    """Put the tables between the markers of the design note."""
    put(DOCS, "prediction", render(result))
