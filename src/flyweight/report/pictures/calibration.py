"""Calibration before and after: of the rows scored p, how many are positive."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flyweight.report.data import ScoreSample
from flyweight.report.pictures.canvas import AFTER, BEFORE, MUTED, NARROW, SURFACE, Margins, draw, place_axes


def draw_calibration(scores: ScoreSample, width: int) -> str:
    """Return the picture of both curves, a point for each tenth of the rows."""
    size = (width, 300 if width < NARROW - 100 else 380)
    label = "Calibration: observed share of positives against predicted probability, before and after"
    return draw(f"calibration-{width}", label, size, lambda figure: _paint(figure, scores))


def calibration_curve(
    probabilities: NDArray[np.float64], targets: NDArray[np.float64], bins: int = 10
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean prediction and observed share of positives in bins of equally many rows, each (bins,).

    Rows are ordered by prediction and cut into equal parts (DeGroot and Fienberg 1983); empty parts are left out.

    Example: predictions 0.1 and 0.9 with targets 0 and 1 in two bins give ([0.1, 0.9], [0, 1]).
    """
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    predicted = np.array([probabilities[part].mean() for part in parts])
    return predicted, np.array([targets[part].mean() for part in parts], dtype=np.float64)


def _paint(figure: Figure, scores: ScoreSample) -> None:
    axes = place_axes(figure, Margins(34, 14, 26, 40))
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    targets = np.asarray(scores.targets, dtype=np.float64)
    # The original is wider and lies beneath, so that it still shows where both agree.
    axes.plot(*calibration_curve(scores.before, targets), color=BEFORE, linewidth=9, alpha=0.5, solid_capstyle="round")
    curve = calibration_curve(scores.after, targets)
    axes.plot(*curve, "o-", color=AFTER, markersize=7, linewidth=2, markeredgecolor=SURFACE)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.grid()
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlabel("predicted probability")
    axes.text(0, 1.025, "share that was positive", transform=axes.transAxes, color=MUTED)
