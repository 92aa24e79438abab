"""The pictures of a search: what lies where, what is told at a point, and that many trials stay few bytes."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from example_search import BEFORE, MARGIN, make_search
from matplotlib.figure import Figure

from flyweight.report.pictures.canvas import Margins, draw, place_axes, tell
from flyweight.report.pictures.frontier import BYTES, LATENCY, Told, draw_frontier, placed, staircase
from flyweight.report.pictures.labels import Labels, size_of
from flyweight.report.pictures.timeline import best_points, draw_timeline, ending_of, lanes_of, slices_of
from flyweight.report.search_data import SearchTold, TriedRecipe
from flyweight.task.estimate import Estimate

TOLD = Told("auc", BEFORE, MARGIN, Estimate(0.0002, -0.0002, 0.0006, n=78_053))


def told_at_points(svg: str) -> list[str]:
    return re.findall(r"<title>([^<]*)</title>", svg)


def trial(number: int, drop: float, size: int = 1_000_000, **changes: Any) -> TriedRecipe:
    estimate = Estimate(drop, drop - 0.0002, drop + 0.0002, n=54_112)
    one = TriedRecipe(number, f"recipe {number}", "done", bytes=size, latency_ms=1.0, speedup=9.4, drop=estimate)
    return replace(one, **changes)


def test_staircase_is_what_no_other_dot_beats_in_both() -> None:
    dots = sorted((float(x), float(drop)) for x, drop in np.random.default_rng(2).uniform(0, 1, (200, 2)))
    best = [one for one in dots if not any(x <= one[0] and y <= one[1] and (x, y) != one for x, y in dots)]
    assert staircase(dots) == best


def test_trials_without_a_drop_or_a_size_are_not_placed() -> None:
    trials = [trial(1, 0.0), trial(2, 0.0, bytes=None), TriedRecipe(3, "cut", "cut", "why", bytes=5)]
    assert [one.number for *_, one in placed(trials, BYTES)] == [1]


def test_each_trial_tells_its_recipe_size_time_and_drop_where_the_pointer_rests() -> None:
    search = make_search(12)
    told = told_at_points(draw_frontier(search, BYTES, TOLD, 1000))
    chosen = next(one for one in search.trials if one.chosen)
    assert chosen.bytes is not None
    (words,) = [words for words in told if words.startswith(f"{chosen.number}: ")]
    assert words.splitlines()[0] == f"{chosen.number}: {chosen.words}"
    assert f"{BEFORE / chosen.bytes:.0f}x smaller" in words
    assert re.search(r"\n[\d.]+ ms, \d+x faster\nAUC drop \S+ \[\S+, \S+\]\ninside the budget$", words)
    measured = [one for one in search.trials if one.drop is not None]
    assert len(told) == len(measured) + len(search.peers) + 1  # and the certificate


@pytest.mark.parametrize("width", [1000, 326])
@pytest.mark.parametrize("axis", [BYTES, LATENCY], ids=lambda axis: axis.key)
def test_chosen_certificate_limits_and_peers_are_named(axis: Any, width: int) -> None:
    search = replace(make_search(12), max_bytes=4e6, max_latency_ms=2.0)
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", draw_frontier(search, axis, TOLD, width))
    assert any(text.startswith("chosen: ") for text in texts)
    assert {"certificate", "allowed: 0.001", "ONNX Runtime dynamic int8", "original, PyTorch"} <= set(texts)
    assert ("allowed: 4.0 MB" if axis is BYTES else "allowed: 2.00 ms") in texts


def test_trial_far_above_the_margin_is_an_arrow_at_the_edge() -> None:
    near, far = trial(1, 0.0004, chosen=True, front=True), trial(2, 0.4, size=500_000, front=True)
    svg = draw_frontier(SearchTold((near, far)), BYTES, TOLD, 1000)
    labels = [float(label) for label in re.findall(r">([+-]?0\.\d+)<", svg)]
    assert max(labels) < 4 * MARGIN
    heights = [float(y) for y in re.findall(r'<use [^>]*y="([\d.]+)"', svg)]
    assert min(heights) == 28  # the upper edge
    assert "AUC drop +0.4000" in svg


@pytest.mark.parametrize("search", [make_search(1), SearchTold((trial(1, 0.002),)), SearchTold((trial(1, 0.0),) * 2)])
def test_few_trials_and_none_on_the_front_are_drawn(search: SearchTold) -> None:
    assert "<svg" in draw_frontier(search, BYTES, replace(TOLD, margin=None, proof=None), 1000)


@pytest.mark.parametrize(
    ("paint", "most"),
    [
        (lambda search: draw_frontier(search, BYTES, TOLD, 1000), 150_000),
        (lambda search: draw_frontier(search, LATENCY, TOLD, 326), 100_000),
        (lambda search: draw_timeline(search, BEFORE, "auc", 1000), 60_000),
        (lambda search: draw_timeline(search, BEFORE, "auc", 326), 30_000),
    ],
)
def test_thousands_of_trials_are_few_bytes(paint: Callable[[SearchTold], str], most: int) -> None:
    assert len(paint(make_search(2_000))) < most


def test_lanes_keep_trials_at_once_apart() -> None:
    times = [(0.0, 5.0), (2.0, 2.0), (5.0, 1.0)]
    trials = [replace(trial(1, 0.0), started=start, seconds=took) for start, took in times]
    assert lanes_of(trials) == [0, 1, 0]
    crowd = [replace(trial(n, 0.0), started=0.0, seconds=9.0) for n in range(40)]
    assert max(lanes_of(crowd)) == 5


def test_slices_share_out_all_time_that_was_spent() -> None:
    search = make_search(300)
    shares = slices_of(search.trials, 50)
    assert set(np.round(np.sum(list(shares.values()), axis=0), 9)) <= {0.0, 1.0}
    half = [replace(trial(1, 0.0, inside=True), seconds=10.0), TriedRecipe(2, "", "failed", started=10.0, seconds=10.0)]
    assert slices_of(half, 2)["inside"].tolist() == [1.0, 0.0]
    assert slices_of(half, 2)["failed"].tolist() == [0.0, 1.0]


def test_measured_trial_ended_inside_or_outside() -> None:
    ends = [trial(1, 0.0, inside=True), trial(2, 0.0), TriedRecipe(3, "", "cut"), TriedRecipe(4, "", "failed")]
    assert [ending_of(one) for one in ends] == ["inside", "outside", "cut", "failed"]


def test_best_so_far_is_told_in_ratios() -> None:
    search = SearchTold((trial(7, 0.0, size=BEFORE // 100),), best_so_far=((12.0, 7), (13.0, 99)), seconds=20.0)
    ((seconds, number, smaller, faster),) = best_points(search, BEFORE)
    assert (seconds, number, faster) == (12.0, 7, 9.4)
    assert math.isclose(smaller, 100)
    svg = draw_timeline(search, BEFORE, "auc", 1000)
    assert "100x smaller" in svg
    assert "9.4x faster" in svg


def test_words_at_a_point_are_escaped_and_read_by_no_rule() -> None:
    words = "<b>\"&'</b>: #010203 font-family: mono; 1.2345 </g><g>"

    def paint(figure: Figure) -> None:
        tell(place_axes(figure, Margins()).plot([0, 1], [0, 1], "o")[0], words)

    svg = draw("odd", "label", (200, 100), paint)
    (told,) = told_at_points(svg)
    assert "<b>" not in svg
    assert told == "&lt;b&gt;&quot;&amp;&apos;&lt;/b&gt;: #010203 font-family: mono; 1.2345 &lt;/g&gt;&lt;g&gt;"


def test_labels_lie_neither_on_each_other_nor_outside() -> None:
    figure = Figure(figsize=(4, 3), dpi=72)
    axes = place_axes(figure, Margins())
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    labels = Labels(axes)
    for x in (0.5, 0.52, 0.98, 0.02):
        labels.put(x, 0.5, "a label of some length", size=11)
    boxes = [box for box, _ in labels._taken]
    window = axes.get_window_extent()
    for place, (left, bottom, right, top) in enumerate(boxes):
        assert window.x0 <= left < right <= window.x1
        for other in boxes[place + 1 :]:
            assert right <= other[0] or other[2] <= left or top <= other[1] or other[3] <= bottom
    assert not labels.put(0.5, 0.5, "a label of some length", size=11, only_if_free=True)


def test_width_of_a_label_is_that_of_its_longest_line() -> None:
    assert size_of("short\na long line", 12)[0] == size_of("a long line", 12)[0]
    assert size_of("short\na long line", 12)[1] == 2 * size_of("short", 12)[1]
