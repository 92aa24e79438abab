"""The numbers behind the pictures against independent tools, and the SVG itself."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from example_allocation import make_allocation
from example_result import make_curve, make_hostile_result, make_result, make_scores, make_tables, make_timings
from example_search import BEFORE, MARGIN, make_search
from scipy import integrate
from sklearn.calibration import calibration_curve as sklearn_curve

from flyweight.report.data import TableRow
from flyweight.report.pictures.allocation import draw_allocation
from flyweight.report.pictures.calibration import calibration_curve, draw_calibration
from flyweight.report.pictures.curve import draw_curve
from flyweight.report.pictures.frontier import BYTES, LATENCY, Told, draw_frontier
from flyweight.report.pictures.latency import density, draw_latency
from flyweight.report.pictures.part_bytes import Part, draw_part_bytes
from flyweight.report.pictures.score_change import describe_change, draw_score_change
from flyweight.report.pictures.timeline import draw_timeline


def parts(rows: tuple[TableRow, ...]) -> list[Part]:
    return [Part(row.name, row.bytes_before, row.bytes_after) for row in rows]


TOLD = Told("auc", BEFORE, MARGIN, make_result().drop)
DRAWN = {
    "tables": lambda width: draw_part_bytes(parts(make_tables()), "table", width),
    "curve": lambda width: draw_curve(make_curve(), 0.001, "auc", make_result().drop, width),
    "calibration": lambda width: draw_calibration(make_scores(), width),
    "scores": lambda width: draw_score_change(make_scores(), width),
    "latency": lambda width: draw_latency(make_timings(), width),
    "front-bytes": lambda width: draw_frontier(make_search(40), BYTES, TOLD, width),
    "front-latency": lambda width: draw_frontier(make_search(40), LATENCY, TOLD, width),
    "timeline": lambda width: draw_timeline(make_search(40), BEFORE, "auc", width),
    "allocation": lambda width: draw_allocation(make_allocation(), width),
}


def test_calibration_curve_is_that_of_sklearn() -> None:
    scores = make_scores(5_000)
    predicted, observed = calibration_curve(scores.before, np.asarray(scores.targets))
    expected_observed, expected_predicted = sklearn_curve(scores.targets, scores.before, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(predicted, expected_predicted)
    np.testing.assert_allclose(observed, expected_observed)


def test_density_of_a_lognormal_sample_is_its_bell() -> None:
    samples = np.random.default_rng(3).lognormal(0.0, 0.3, 20_000)
    grid = np.exp(np.linspace(-1.5, 1.5, 601))
    hill = density(samples, grid)
    area = integrate.trapezoid(hill, np.log(grid))
    assert area == pytest.approx(0.3 * np.sqrt(2 * np.pi), rel=0.06)  # of exp(-x^2 / 2 sd^2)
    assert abs(np.log(grid[hill.argmax()])) < 0.08


def test_density_of_equal_samples_is_a_spike() -> None:
    hill = density(np.full(50, 2.0), np.geomspace(1, 4, 101))
    assert hill.argmax() == 50
    assert (hill > 0.5).sum() <= 3


def test_change_in_words_gives_median_and_99th_percentile() -> None:
    scores = make_scores()
    moved = np.sort(np.abs(scores.after - scores.before))
    said = [float(value) for value in re.findall(r"less than ([\d.]+\d)", describe_change(scores))]
    assert said == [pytest.approx(moved[10_000], rel=0.06), pytest.approx(moved[19_800], rel=0.06)]


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("width", [1000, 326])
def test_picture_is_well_formed_text_and_themed(name: str, width: int) -> None:
    svg = DRAWN[name](width)
    root = ET.fromstring(svg)
    assert root.get("viewBox", "").split()[2] == str(width)
    assert root.get("width") is None
    assert len(root.findall(".//{http://www.w3.org/2000/svg}text")) > 4
    assert not re.search(r"#[0-9a-f]{6}\b", svg), "a colour that no theme can change"
    assert "var(--after)" in svg


@pytest.mark.parametrize("name", DRAWN)
def test_picture_is_the_same_each_time(name: str) -> None:
    assert DRAWN[name](1000) == DRAWN[name](1000)


def test_identifiers_of_two_pictures_differ() -> None:
    ids = [set(re.findall(r' id="([^"]+)"', paint(width))) for paint in DRAWN.values() for width in (1000, 326)]
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_largest_tables_stand_on_top_and_the_rest_together() -> None:
    svg = draw_part_bytes(parts(make_tables()), "table", 1000)
    texts = [text for text in re.findall(r"<text[^>]*>([^<]+)</text>", svg) if not re.search(r"\d [kM]?B|\dx", text)]
    assert texts[:2] == ["household_x_product", "household_x_type"]
    assert texts[-1] == "10 smaller tables"


def test_dollars_in_a_name_are_not_mathematics() -> None:
    assert "price_$_band_$^{x}$" in draw_part_bytes(parts(make_hostile_result().tables), "table", 1000)


def test_table_of_no_bytes_is_drawn() -> None:
    assert "<svg" in draw_part_bytes([Part("gone", 160, 0)], "table", 1000)


def test_point_far_above_the_margin_does_not_squash_the_others() -> None:
    labels = re.findall(r">([+-]?0\.\d+)<", DRAWN["curve"](1000))
    assert max(float(label) for label in labels) < 0.006  # one point lies at 0.011
