"""Score of the original against score of the new model, row by row, as a map of how many rows lie where."""

import numpy as np
from matplotlib.figure import Figure

from flyweight.report.data import ScoreSample
from flyweight.report.pictures.canvas import AFTER, MUTED, NARROW, Margins, draw, place_axes
from flyweight.report.words import count_in_words


def draw_score_change(scores: ScoreSample, width: int) -> str:
    """Return the picture; a cell is the darker the more rows lie in it, on a logarithmic scale."""
    size = (width, 300 if width < NARROW - 100 else 380)
    label = "Score of the compressed model against score of the original for the same rows"
    return draw(f"scores-{width}", label, size, lambda figure: _paint(figure, scores))


def describe_change(scores: ScoreSample) -> str:
    """Return how far scores moved, in words.

    Example: "Half of the scores moved by less than 0.0031, 99% by less than 0.072."
    """
    moved = np.abs(scores.after - scores.before)
    half, most = (float(value) for value in np.quantile(moved, (0.5, 0.99)))
    return f"Half of the scores moved by less than {half:.2g}, 99% by less than {most:.2g}."


def _paint(figure: Figure, scores: ScoreSample) -> None:
    axes = place_axes(figure, Margins(34, 14, 26, 40))
    if scores.binary:
        low, high = 0.0, 1.0
    else:
        both = np.concatenate([scores.before, scores.after])
        low, high = float(both.min()), float(both.max())
        low, high = (low - 0.5, high + 0.5) if high <= low else (low, high)
    room = 0.02 * (high - low)
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(low - room, high + room)
    cells = axes.hexbin(scores.before, scores.after, gridsize=25, extent=(low, high, low, high), mincnt=1, linewidths=0)
    counts = np.asarray(cells.get_array(), dtype=float)
    share = np.log1p(counts) / np.log1p(counts.max())
    cells.set_array(None)
    cells.set_facecolor([(AFTER, round(0.1 + 0.9 * depth, 2)) for depth in share])
    cells.set_clip_path(None)  # all lie inside; a clip a cell would be half of the picture
    cells.set_clip_on(False)
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (2, 3)), zorder=0)
    axes.grid()
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlabel("score of the original")
    axes.text(0, 1.025, "score of the new model", transform=axes.transAxes, color=MUTED)
    axes.text(1, 1.025, f"{count_in_words(len(scores.before))} rows", transform=axes.transAxes, color=MUTED, ha="right")
