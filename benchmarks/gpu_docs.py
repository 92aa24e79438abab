"""The table of docs/gpu.md, with what it was measured on, made from the JSON of the GPU benchmark."""

from pathlib import Path
from typing import Any

from flyweight.cost.limits import Limits, from_data
from page_section import put

DOCS = Path(__file__).parents[1] / "docs" / "gpu.md"

Json = dict[str, Any]


def write_docs(found: Json, table: str, docs: Path = DOCS) -> None:
    """Put the table between the marks of the page, below it the device, its limits and who was left out.

    Raises:
        ValueError: the page lacks a mark, or has one twice.
    """
    put(docs, "gpu", f"{table}\n\n{note(found)}")


def note(found: Json) -> str:
    """Return what a table was measured on, and a line for each contender that was left out."""
    hardware, limits = found["hardware"], from_data(found["limits"])
    packages = hardware["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("onnxruntime", "torch") if name in packages)
    about = (
        f"{hardware['gpu']}, CUDA {hardware['cuda']}; {versions}; copies from {hardware['cpu']}. Milliseconds, "
        f"calls in turns. Limits measured: {limits_in_words(limits)}."
    )
    return "\n".join([about, *(["", "Left out:", ""] if found["left_out"] else []), *_left_out(found["left_out"])])


def _left_out(reasons: list[str]) -> list[str]:
    """Return lines, each reason once: a model's refused rewrites come with every size."""
    return [f"- {one.rstrip('.')}." for one in dict.fromkeys(reasons)]


def limits_in_words(limits: Limits) -> str:
    """Return what a device can do, in one sentence."""
    levels = ", ".join(f"{level.name} {level.rate / 1e9:,.0f} GB/s" for level in limits.levels)
    peaks = ", ".join(f"{one.precision} {one.rate / 1e12:,.0f} T operations/s" for one in limits.peaks)
    unknown = "".join(f"; no {precision} ({why})" for precision, why in limits.unknown.items())
    call, operator = 1e6 * limits.overhead.call, 1e6 * limits.overhead.operator
    return f"{levels}; {peaks}{unknown}; {call:.1f} us a call and {operator:.2f} us a kernel of a CUDA graph"
