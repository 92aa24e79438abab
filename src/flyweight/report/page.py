"""The page: one HTML file that holds its own style and pictures and asks nothing of any network."""

import math
from collections.abc import Callable
from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flyweight.report.allocation_part import allocation_pictures
from flyweight.report.data import LayerRow, ReportData, TableRow
from flyweight.report.front import best_in_words, pick_command
from flyweight.report.measured import how_measured
from flyweight.report.picture import FULL, HALF, PAIR, SQUARE, Picture, drawings
from flyweight.report.pictures.calibration import draw_calibration
from flyweight.report.pictures.curve import draw_curve
from flyweight.report.pictures.latency import draw_latency
from flyweight.report.pictures.part_bytes import Part, draw_part_bytes
from flyweight.report.pictures.score_change import describe_change, draw_score_change
from flyweight.report.search_parts import (
    front_rows,
    search_facts,
    search_pictures,
    shown_axes,
)
from flyweight.report.verdict import comparison, judge
from flyweight.report.words import bytes_in_words, count_in_words, divided, metric_in_words, milliseconds_in_words


def render_page(data: ReportData) -> str:
    """Return the report as one HTML document; the same data give the same text.

    Every word of the user's (names, reasons, codings) is escaped. Pictures are drawn twice, for a laptop and for a
    phone, and the page shows the one that fits.
    """
    environment = Environment(
        loader=PackageLoader("flyweight", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        data=data,
        verdict=judge(data),
        lines=comparison(data),
        size_before=bytes_in_words(data.before.bytes),
        size_after=bytes_in_words(data.after.bytes),
        size_ratio=divided(data.before.bytes, data.after.bytes),
        side=_side_to_scale(data),
        pictures=[picture for part in PICTURES for picture in part(data)],
        tables=[_table_words(row) for row in sorted(data.tables, key=lambda row: (-row.bytes_before, row.name))],
        layers=[_layer_words(row) for row in data.layers],
        front=front_rows(data),
        front_below=f"front-{axes[-1].key}" if (axes := shown_axes(data)) else "",
        command=pick_command(data.search) if data.search else "",
        best=best_in_words(data.search) if data.search else "",
        facts=search_facts(data.search) if data.search else (),
        measured=how_measured(data),
        milliseconds=milliseconds_in_words,
    )


def _tables(data: ReportData) -> list[Picture]:
    if not data.tables:
        return []
    held = (bytes_in_words(data.before.table_bytes), bytes_in_words(data.after.table_bytes))
    tables = "1 embedding table" if len(data.tables) == 1 else f"{len(data.tables)} embedding tables"
    words = f"{tables}: {held[0]}, now {held[1]}. The scale is logarithmic: every step to the right multiplies."
    parts = [Part(row.name, row.bytes_before, row.bytes_after) for row in data.tables]
    drawn = drawings(partial(draw_part_bytes, parts, "table"), FULL)
    return [Picture("tables", "Where the bytes were, and are", words, *drawn, legend=PAIR)]


def _layers(data: ReportData) -> list[Picture]:
    if not data.layers:
        return []
    parts = [Part(row.name, row.bytes_before, row.bytes_after) for row in data.layers]
    held = (bytes_in_words(sum(part.bytes_before for part in parts)), sum(part.bytes_after for part in parts))
    layers = "The weights of 1 layer" if len(parts) == 1 else f"The weights of {len(parts)} layers"
    words = f"{layers}: {held[0]}, now {bytes_in_words(held[1])}. The scale is logarithmic."
    drawn = drawings(partial(draw_part_bytes, parts, "layer"), FULL)
    return [Picture("layers", "What became of the layers", words, *drawn, legend=PAIR)]


def _curve(data: ReportData) -> list[Picture]:
    if not data.curve or shown_axes(data):  # the pictures of a search show all that the curve of its steps would
        return []
    proof = data.drop if data.after.split == "test" else None
    words = "Each point is a whole set of choices, tried on validation rows; the bars are "
    words += f"{data.curve[0].drop.confidence:.0%} intervals."
    if proof is not None:
        words += " The diamond is the certificate: the chosen model, exported, on test rows that no choice had seen."
    drawn = drawings(partial(draw_curve, data.curve, data.margin, data.metric, proof), FULL)
    return [Picture("curve", f"What each size costs in {metric_in_words(data.metric)}", words, *drawn)]


def _scores(data: ReportData) -> list[Picture]:
    scores = data.scores
    if scores is None or len(scores.before) == 0:
        return []
    paired = Markup(draw_score_change(scores, SQUARE))
    change = Picture("scores", "The same rows, scored by both", describe_change(scores), paired, half=True)
    if not scores.binary or scores.targets is None:
        return [change]
    words = "Of the rows scored 30%, do 30% turn out positive? On the dotted line, they do."
    drawn = drawings(partial(draw_calibration, scores), HALF)
    return [Picture("calibration", "Are probabilities still true?", words, *drawn, half=True, legend=PAIR), change]


def _latency(data: ReportData) -> list[Picture]:
    if not data.timings:
        return []
    words = "The hill shows where calls fall, the dot is the median, the line runs to the slowest 1%."
    roles = {timing.role for timing in data.timings}
    named = (("before", "original"), ("exported", "original, exported"), ("after", "compressed"))
    legend = tuple(pair for pair in named if pair[0] in roles)
    drawn = drawings(partial(draw_latency, data.timings, unit=data.unit), FULL)
    return [Picture("latency", "How long a call takes", words, *drawn, legend=legend)]


#: The pictures in the order of the page.
PICTURES: tuple[Callable[[ReportData], list[Picture]], ...] = (
    search_pictures, _tables, _layers, allocation_pictures, _curve, _scores, _latency,
)  # fmt: skip


def _table_words(row: TableRow) -> dict[str, str]:
    return {
        "name": row.name,
        "shape": f"{count_in_words(row.rows)} x {row.dim}",
        "coding": row.coding,
        "before": bytes_in_words(row.bytes_before),
        "after": bytes_in_words(row.bytes_after),
        "ratio": divided(row.bytes_before, row.bytes_after),
    }


def _layer_words(row: LayerRow) -> dict[str, str]:
    return {
        "name": row.name,
        "before": row.before,
        "after": row.after,
        "ratio": divided(row.bytes_before, row.bytes_after),
    }


def _side_to_scale(data: ReportData) -> float:
    """Side of the small square when the original's is 100: areas are to scale. Never so small that it is not seen."""
    if data.before.bytes <= 0:
        return 100.0
    return round(min(100.0, max(1.0, 100.0 * math.sqrt(data.after.bytes / data.before.bytes))), 2)
