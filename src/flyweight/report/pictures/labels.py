"""Labels beside points: each where there is room, so that none lies on another or leaves the picture."""

from typing import Any

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels
#: Places tried in turn: which way from the point, and how far.
_WAYS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_STEPS = (1.0, 1.9, 3.2, 4.8)
#: How bad it is to lie on a label, a point or a line, for each square pixel.
_LABEL, _POINT, _LINE = 40.0, 1.0, 0.3
#: How bad it is to reach over the edge, for each pixel.
_OUTSIDE = 400.0
LINE = 1.25  # of the font size


class Labels:
    """Puts labels on axes whose limits are final; whatever lies there already is named by `keep_free`."""

    def __init__(self, axes: Any) -> None:
        self._axes = axes
        window = axes.get_window_extent()
        self._window: Box = (window.x0, window.y0, window.x1, window.y1)
        self._taken: list[tuple[Box, float]] = []

    def keep_free(self, x: float, low: float, high: float, room: float = 5.0, dear: float = 1.0) -> None:
        """Keep a point, or a bar from `low` to `high`, free of labels where there is another place.

        Args:
            room: pixels around it.
            dear: how many points it is worth.
        """
        left, bottom = self._axes.transData.transform((x, low))
        top = self._axes.transData.transform((x, high))[1]
        self._taken.append(((left - room, bottom - room, left + room, top + room), dear * _POINT))

    def keep_line_free(self, y: float) -> None:
        """Keep a line across the picture free where that costs nothing else."""
        place = self._axes.transData.transform((1.0, y))[1]
        self._taken.append(((self._window[0], place - 2.0, self._window[2], place + 2.0), _LINE))

    def keep_box_free(self, box: Box) -> None:
        """Keep a box of pixels as free as if a label stood there."""
        self._taken.append((box, _LABEL))

    def put(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float,
        away: float = 10.0,
        only_if_free: bool = False,
        **style: Any,
    ) -> bool:
        """Write words beside a point, with a thin line to it where they stand far off; return whether they stand.

        Args:
            away: pixels between the point and the nearest place.
            only_if_free: leave the words out where every place has something on it.
        """
        at = self._axes.transData.transform((x, y))
        weight = style.get("fontweight", "normal")
        shape = size_of(words, size, weight)
        best: tuple[float, Box, float] | None = None
        for step in _STEPS[: 1 if only_if_free else None]:
            for way in _WAYS:
                box = _beside(at, shape, way, step * away)
                cost = self._cost(box) + 3.0 * (step - 1.0)
                if best is None or cost < best[0]:
                    best = cost, box, step
        assert best is not None
        cost, box, step = best
        if only_if_free and cost > 0:
            return False
        self._write(at, box, words, size, leader=step > 2.0, style=style)
        return True

    def _cost(self, box: Box) -> float:
        outside = sum(max(0.0, over) for over in _over(box, self._window))
        return _OUTSIDE * outside + sum(weight * _shared(box, other) for other, weight in self._taken)

    def _write(self, at: Any, box: Box, words: str, size: float, *, leader: bool, style: dict[str, Any]) -> None:
        middle = (box[0] + box[2]) / 2
        beside = ("left", box[0]) if box[0] > at[0] else ("right", box[2]) if box[2] < at[0] else ("center", middle)
        align, place = beside
        if leader:
            end = (min(max(at[0], box[0]), box[2]), min(max(at[1], box[1]), box[3]))
            self._axes.plot(
                [at[0], end[0]], [at[1], end[1]], transform=None, color=style.get("color"), linewidth=0.8, alpha=0.6
            )
        self._axes.text(
            place, (box[1] + box[3]) / 2, words, transform=None, ha=align, va="center", fontsize=size,
            linespacing=LINE, **style,
        )  # fmt: skip
        self.keep_box_free(box)


def size_of(words: str, size: float, weight: str = "normal") -> tuple[float, float]:
    """Return width and height in pixels of words set in the measuring font; lines are cut at line ends."""
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    lines = words.split("\n")
    wide = max(text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in lines)
    return float(wide), LINE * size * len(lines)


def _beside(at: Any, shape: tuple[float, float], way: tuple[int, int], away: float) -> Box:
    """Return the box of that shape which lies that way from a point."""
    wide, tall = shape
    slant = 0.7 if way[0] and way[1] else 1.0
    left = at[0] + way[0] * slant * away - {1: 0.0, 0: wide / 2, -1: wide}[way[0]]
    bottom = at[1] + way[1] * slant * away - {1: 0.0, 0: tall / 2, -1: tall}[way[1]]
    return left, bottom, left + wide, bottom + tall


def _over(box: Box, window: Box) -> tuple[float, ...]:
    return window[0] - box[0], window[1] - box[1], box[2] - window[2], box[3] - window[3]


def _shared(one: Box, other: Box) -> float:
    """Return the area that two boxes share, in square pixels."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    tall = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(tall, 0.0)
