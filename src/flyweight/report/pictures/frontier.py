"""What a search found, as bytes against drop and as time against drop: trials, the front, the chosen one, peers."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from flyweight.report.pictures.canvas import (
    AFTER,
    BEFORE,
    EXPORTED,
    GRID,
    INK,
    LIMIT,
    MUTED,
    NARROW,
    SURFACE,
    Margins,
    draw,
    place_axes,
    shortened,
    tell,
)
from flyweight.report.pictures.labels import Labels, size_of
from flyweight.report.search_data import PeerPoint, SearchTold, TriedRecipe
from flyweight.report.search_words import interval_in_words, size_in_words, time_in_words, tip_of
from flyweight.report.words import bytes_in_words, metric_in_words, milliseconds_in_words, signed
from flyweight.task.estimate import Estimate

#: Trials that are drawn with what they are, where a pointer can rest on them; were there more, those off the front are
#: dots without words.
MOST_TIPS = 250
#: Dots nearer than so many pixels are one dot where there are more trials than that.
NEAR = 5.0
#: Drops up to so many margins are shown; what lies beyond is an arrow.
MARGINS = 3.0
#: Points of the front that get their numbers written beside them.
MOST_NUMBERS = 24


Dot = tuple[float, float, TriedRecipe]  # x, drop, and whose they are


@dataclass(frozen=True)
class Axis:
    """What the drop is held against.

    Args:
        key: letters for identifiers.
        words, few: below the axis, and below a narrow one.
        value: of a trial or a peer; None where it was not measured.
        tick: a value in words.
        name: of the chosen trial, given the original's bytes.
        limit: the budget's.
    """

    key: str
    words: str
    few: str
    value: Callable[[TriedRecipe | PeerPoint], float | None]
    tick: Callable[[float], str]
    name: Callable[[TriedRecipe, int], str]
    limit: Callable[[SearchTold], float | None]


BYTES = Axis(
    key="bytes",
    words="bytes of the exported model on disk (left is better)",
    few="bytes on disk (left is better)",
    value=lambda one: one.bytes,
    tick=bytes_in_words,
    name=size_in_words,
    limit=lambda search: search.max_bytes,
)
LATENCY = Axis(
    key="latency",
    words="median of one request (left is better)",
    few="median of a request (left is better)",
    value=lambda one: one.latency_ms,
    tick=milliseconds_in_words,
    name=lambda trial, before: time_in_words(trial),
    limit=lambda search: search.max_latency_ms,
)


@dataclass(frozen=True)
class Told:
    """What a picture needs beside the search.

    Args:
        metric: its name; before: bytes of the original; margin: the drop allowed.
        proof: the drop on the test split of the model that was handed on.
    """

    metric: str
    before: int
    margin: float | None
    proof: Estimate | None = None


def draw_frontier(search: SearchTold, axis: Axis, told: Told, width: int) -> str:
    """Return the picture: a dot a trial, the front filled and joined by steps; better is down and to the left."""
    metric = metric_in_words(told.metric)
    label = f"Drop in {metric} of every recipe tried, against {axis.words}, on a logarithmic scale"
    size = (width, 390 if width < NARROW else 420)
    return draw(f"front-{axis.key}-{width}", label, size, lambda figure: _Painter(figure, search, axis, told).paint())


def placed(trials: Sequence[TriedRecipe], axis: Axis) -> list[Dot]:
    """Return x, drop and trial of all that have both, from left to right."""
    found = [(axis.value(trial), trial.drop, trial) for trial in trials]
    dots = [(float(x), drop.value, trial) for x, drop, trial in found if x is not None and x > 0 and drop is not None]
    return sorted(dots, key=lambda dot: dot[:2])


def staircase(dots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the dots, given from left to right, that have none to their left that is as low.

    Example:
        >>> staircase([(1.0, 0.5), (2.0, 0.7), (3.0, 0.2)])
        [(1.0, 0.5), (3.0, 0.2)]
    """
    kept: list[tuple[float, float]] = []
    for x, drop in dots:
        if not kept or drop < kept[-1][1]:
            kept.append((x, drop))
    return kept


class _Painter:
    """One picture while it is painted."""

    def __init__(self, figure: Figure, search: SearchTold, axis: Axis, told: Told) -> None:
        self.search, self.axis, self.told = search, axis, told
        self.narrow = figure.get_size_inches()[0] * 72 < NARROW
        self.axes = place_axes(figure, Margins(60, 14, 28, 42))
        self.dots = placed(search.trials, axis)
        self.peers = [(x, peer) for peer in search.peers if (x := axis.value(peer)) is not None and x > 0]
        self.chosen = next((dot for dot in self.dots if dot[2].chosen), None)
        self.low, self.high = self._window()
        self.size = 11.0 if self.narrow else 12.0

    def paint(self) -> None:
        self._frame()
        self.labels = Labels(self.axes)
        self._zones()
        self._others()
        self._front()
        self._certificate()
        self._mark_peers()
        self._mark_chosen()
        self._name()

    def _window(self) -> tuple[float, float]:
        """The drops worth showing: what was chosen, the certificate and the margin whole, others up to some margins."""
        kept = [self.chosen[2].drop] if self.chosen and self.chosen[2].drop else []
        kept += [self.told.proof] if self.told.proof else []
        values = [drop for _, drop, _ in self.dots] + [peer.drop.value for _, peer in self.peers] or [0.0]
        lows, highs = [0.0, *(drop.low for drop in kept)], [0.0, *(drop.high for drop in kept)]
        margin = self.told.margin
        if margin:
            low = min(max(min(values), -MARGINS * margin), *lows)
            high = max(min(max(values), MARGINS * margin), 1.5 * margin, *highs)
        else:
            low, high = min(float(np.quantile(values, 0.02)), *lows), max(float(np.quantile(values, 0.9)), *highs)
        room = 0.08 * (high - low) or 1e-4
        return low - room, high + room

    def _frame(self) -> None:
        axes, told = self.axes, self.told
        limit = self.axis.limit(self.search)
        across = [x for x, *_ in self.dots] + [x for x, _ in self.peers] + ([limit] if limit else [])
        left, right = min(across), max(across)
        room = max((right / left) ** 0.05, 1.15) if right / left > 1.3 else 2.0
        axes.set_xscale("log")
        axes.set_xlim(left / room, right * room)
        axes.set_ylim(self.low, self.high)
        decades = float(np.log10(right / left * room * room))
        few = decades / (2 if self.narrow else 1)
        subs = (1.0,) if few > 1.5 else (1.0, 3.0) if few > 0.7 else (1.0, 2.0, 5.0)
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=6 if self.narrow else 12))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _rounded(self.axis.tick(value))))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.4g}" if abs(value) > 1e-12 else "0"))
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(self.axis.few if self.narrow else self.axis.words)
        above = f"drop in {metric_in_words(told.metric)} (down is better)"
        axes.text(0, 1.02, above, transform=axes.transAxes, color=MUTED)

    def _zones(self) -> None:
        """What the budget forbids: drops above the margin, and whatever is too large or too slow."""
        axes, margin, limit = self.axes, self.told.margin, self.axis.limit(self.search)
        axes.axhline(0, color=MUTED, linewidth=1, zorder=1)
        for drop in (0.0, *([] if margin is None else [margin])):
            self.labels.keep_line_free(drop)
        dashes = {"color": LIMIT, "linewidth": 1.4, "linestyle": (0, (5, 3)), "zorder": 1}
        if margin is not None:
            axes.axhspan(margin, self.high, color=LIMIT, alpha=0.09, linewidth=0, zorder=0)
            axes.axhline(margin, **dashes)
            self._allowed(f"allowed: {margin:g}", axes.get_xlim()[0], margin, "left")
        if limit is not None:
            axes.axvspan(limit, axes.get_xlim()[1], color=LIMIT, alpha=0.09, linewidth=0, zorder=0)
            axes.axvline(limit, **dashes)
            self._allowed(f"allowed: {self.axis.tick(limit)}", limit, self.low, "right")

    def _allowed(self, words: str, x: float, drop: float, align: str) -> None:
        """Write a limit's words on its line."""
        left, bottom = self.axes.transData.transform((x, drop))
        wide, tall = size_of(words, 12)
        left += 4 if align == "left" else -4 - wide
        self.axes.text(left, bottom + 5, words, transform=None, color=LIMIT)
        self.labels.keep_box_free((left, bottom, left + wide, bottom + 5 + tall))

    def _others(self) -> None:
        """Trials off the front: hollow, grey where they were cut, and each with its words unless there are too many."""
        others = [dot for dot in self.dots if not dot[2].front and not dot[2].chosen]
        told = len(self.dots) <= MOST_TIPS and not self.narrow
        alike: dict[tuple[str, int], list[Dot]] = defaultdict(list)
        for dot in others if len(self.dots) <= MOST_TIPS else self._thinned(others):
            shown = self._inside(dot[1])
            self.labels.keep_free(dot[0], shown, shown, room=3.0)
            alike[AFTER if dot[2].state == "done" else BEFORE, self._side(dot[1])].append(dot)
        for (colour, _), dots in alike.items():
            for together in [[dot] for dot in dots] if told else [dots]:
                drawn = self._dots(together, colour, size=5.5, hollow=True)
                if told:
                    tell(drawn, tip_of(together[0][2], self.told.before, self.told.metric))

    def _thinned(self, dots: list[Dot]) -> list[Dot]:
        """Return the dots without those that lie on another."""
        apart: dict[tuple[int, int], Dot] = {}
        for dot in dots:
            across, up = self.axes.transData.transform((dot[0], self._inside(dot[1])))
            apart.setdefault((int(across // NEAR), int(up // NEAR)), dot)
        return list(apart.values())

    def _front(self) -> None:
        front = [dot for dot in self.dots if dot[2].front or dot[2].chosen]
        steps = staircase([dot[:2] for dot in front])
        if len(steps) > 1:
            steps.append((self.axes.get_xlim()[1], steps[-1][1]))
            across, down = zip(*steps, strict=True)
            self.axes.plot(across, down, drawstyle="steps-post", color=AFTER, linewidth=1.6, alpha=0.5, zorder=1.5)
        for chosen in (False, True):
            bars = [(x, trial.drop) for x, drop, trial in front if trial.chosen is chosen and not self._side(drop)]
            ends = [(x, self._inside(drop.low), self._inside(drop.high)) for x, drop in bars if drop is not None]
            style = {"linewidth": 2.0, "alpha": 1.0} if chosen else {"linewidth": 1.4, "alpha": 0.45}
            if ends:
                self.axes.vlines(*zip(*ends, strict=True), color=AFTER, **style)
        for dot in front:
            shown = self._inside(dot[1])
            self.labels.keep_free(dot[0], shown, shown)
            drawn = self._dots([dot], AFTER, size=8.0, hollow=False)
            tell(drawn, tip_of(dot[2], self.told.before, self.told.metric))

    def _dots(self, dots: Sequence[Dot], colour: str, *, size: float, hollow: bool) -> Any:
        """Trials that lie on one side of the window's edges; beyond it they are arrows at the edge."""
        style: dict[str, Any] = {"markersize": size, "clip_on": False, "linestyle": "none"}
        side = self._side(dots[0][1])
        if side:
            style |= {"marker": 6 if side > 0 else 7, "color": colour, "alpha": 0.55 if hollow else 1.0}
        elif hollow:
            style |= {"marker": "o", "color": SURFACE, "markeredgecolor": colour, "markeredgewidth": 1.2, "alpha": 0.6}
        else:
            style |= {"marker": "o", "color": colour, "markeredgecolor": SURFACE, "zorder": 2.5}
        return self.axes.plot([dot[0] for dot in dots], [self._inside(dot[1]) for dot in dots], **style)[0]

    def _mark_peers(self) -> None:
        for x, peer in self.peers:
            shown = self._inside(peer.drop.value)
            side = self._side(peer.drop.value)
            marker: Any = {-1: 7, 0: "D", 1: 6}[side]
            if not side:
                ends = self._inside(peer.drop.low), self._inside(peer.drop.high)
                self.axes.vlines(x, *ends, color=EXPORTED, linewidth=1.4, alpha=0.6)
            drawn = self.axes.plot(
                [x], [shown], marker=marker, color=EXPORTED, markersize=8, markeredgecolor=SURFACE, clip_on=False,
                linestyle="none", zorder=2.6,
            )[0]  # fmt: skip
            size = f"{size_in_words(peer, self.told.before)}\n{milliseconds_in_words(peer.latency_ms)}"
            tell(drawn, f"{peer.name}\n{size}\n{metric_in_words(self.told.metric)} drop {interval_in_words(peer.drop)}")
            self.labels.keep_free(x, shown, shown, dear=6.0)

    def _certificate(self) -> None:
        """Where the chosen model landed on test rows, beside it, so that both intervals can be seen."""
        proof = self.told.proof
        if proof is None or self.chosen is None:
            return
        beside = self._beside()
        self.axes.vlines(beside, proof.low, proof.high, color=INK, linewidth=2)
        mark = self.axes.plot(
            [beside], [proof.value], "D", color=INK, markersize=7, markeredgecolor=SURFACE, clip_on=False, zorder=2.7
        )[0]
        tell(mark, f"certificate, on test rows\n{metric_in_words(self.told.metric)} drop {interval_in_words(proof)}")
        self.labels.keep_free(beside, proof.low, proof.high, room=4.0)

    def _beside(self) -> float:
        """Return the place that many pixels to the right of the chosen trial."""
        assert self.chosen is not None
        across = self.axes.transData.transform((self.chosen[0], 0.0))[0] + (13 if self.narrow else 16)
        return float(self.axes.transData.inverted().transform((across, 0.0))[0])

    def _mark_chosen(self) -> None:
        if self.chosen is None:
            return
        x, drop, trial = self.chosen
        shown = self._inside(drop)
        self.axes.axvline(x, color=GRID, linewidth=1.4, zorder=0)
        ring = {"markerfacecolor": "none", "markeredgecolor": AFTER, "markeredgewidth": 2, "clip_on": False}
        self.axes.plot(x, shown, "o", markersize=17, zorder=2.8, **ring)
        assert trial.drop is not None
        self.labels.keep_free(x, self._inside(trial.drop.low), self._inside(trial.drop.high), room=9.0)

    def _name(self) -> None:
        """Write names of what was chosen, the certificate and the peers, then trials' numbers where there is room."""
        if self.chosen is not None:
            x, drop, trial = self.chosen
            assert trial.drop is not None
            lost = signed(trial.drop.value) if self.narrow else interval_in_words(trial.drop)
            words = f"chosen: {self.axis.name(trial, self.told.before)}\ndrop {lost}"
            self.labels.put(x, self._inside(drop), words, size=self.size, away=14.0, color=INK, fontweight="bold")
            if self.told.proof is not None:
                self.labels.put(
                    self._beside(), self.told.proof.value, "certificate", size=self.size, away=9.0, color=INK
                )
        for x, drop, names in self._together():
            self.labels.put(x, drop, "\n".join(names), size=self.size, color=MUTED)
        front = [dot for dot in self.dots if dot[2].front and not dot[2].chosen]
        for x, drop, trial in front if len(front) <= MOST_NUMBERS else []:
            number = str(trial.number)
            self.labels.put(x, self._inside(drop), number, size=self.size - 1, away=7.0, only_if_free=True, color=MUTED)

    def _together(self) -> list[tuple[float, float, list[str]]]:
        """Return place and names of the peers; those that stand on each other have one label."""
        found: dict[tuple[int, int], tuple[float, float, list[str]]] = {}
        for x, peer in self.peers:
            drop = self._inside(peer.drop.value)
            across, up = (round(float(one) / 8) for one in self.axes.transData.transform((x, drop)))
            place = found.setdefault((across, up), (x, drop, []))
            place[2].append(shortened(peer.name, 26 if self.narrow else 40))
        return list(found.values())

    def _side(self, drop: float) -> int:
        """Return 1 above the window, -1 below it, 0 within."""
        return int(drop > self.high) - int(drop < self.low)

    def _inside(self, drop: float) -> float:
        return min(max(drop, self.low), self.high)


def _rounded(words: str) -> str:
    """Return a tick without places that are nothing: "1 MB" for "1.0 MB", "0.5 ms" for "0.50 ms"."""
    number, _, unit = words.partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"
