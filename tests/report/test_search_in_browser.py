"""The page of a search in a real browser: it overflows nowhere, however many trials; the front is sorted by a click."""

import html
import json
import re
from pathlib import Path

import matplotlib.image
import pytest
from example_allocation import make_allocation
from example_search import make_hostile_search, make_searched_result
from test_page_in_browser import LAPTOP, PHONE, SCREENSHOTS, measure, pytestmark, run_chromium, wrap

from flyweight.report.data import ReportData
from flyweight.report.front import front_of
from flyweight.report.page import render_page

__all__ = ["pytestmark"]

RESULTS = {
    "one": lambda: make_searched_result(1, allocation=make_allocation(1, 0)),
    "dozen": lambda: make_searched_result(12, allocation=make_allocation()),
    "many": lambda: make_searched_result(200, allocation=make_allocation(500, 40)),
    "hostile": make_hostile_search,
}
TABLET = 768
SORTED = """<!doctype html><meta charset="utf-8"><body>
<iframe id="f" style="width:1280px;height:900px" srcdoc="{page}"></iframe><pre id="measured"></pre><script>
addEventListener("load", () => {{
  const page = document.getElementById("f").contentDocument, found = {{}};
  page.querySelectorAll("details").forEach((e) => e.open = true);
  for (const key of ["bytes", "time", "drop"]) {{
    page.getElementById("by-" + key).click();
    const rows = [...page.querySelectorAll(".front tbody tr")];
    rows.sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top);
    found[key] = rows.map((row) => parseInt(row.cells[0].textContent));
  }}
  document.getElementById("measured").textContent = JSON.stringify(found);
}});
</script></body>"""


@pytest.mark.parametrize(
    ("name", "width"), [*((name, width) for name in RESULTS for width in (LAPTOP, PHONE)), ("hostile", TABLET)]
)
def test_page_of_a_search_holds_its_pictures_and_overflows_nowhere(tmp_path: Path, name: str, width: int) -> None:
    seen = measure(tmp_path, RESULTS[name](), width, unfold=True)
    assert seen["width"] == width
    assert seen["scroll"] <= width, f"the page scrolls sideways: {seen['scroll']} px"
    assert seen["outside"] == []
    assert seen["cut"] == [], "text of a picture reaches over its edge"
    assert seen["scripts"] == 0
    assert len(seen["pictures"]) == 9
    assert all(size > 9.5 for size in seen["letters"]), "text of a picture is too small to read"


def test_front_is_sorted_by_a_click_without_any_script(tmp_path: Path) -> None:
    data = make_searched_result(60)
    assert data.search is not None
    wrapper = tmp_path / "sorted.html"
    wrapper.write_text(SORTED.format(page=html.escape(render_page(data))))
    printed = run_chromium(tmp_path, wrapper.as_uri(), "--dump-dom")
    found = re.search(r'<pre id="measured">(.+?)</pre>', printed, re.DOTALL)
    assert found, printed[-500:]
    orders = json.loads(html.unescape(found[1]))
    front = front_of(data.search)
    values = {
        "bytes": lambda one: (one.bytes, one.number),
        "time": lambda one: (one.latency_ms, one.number),
        "drop": lambda one: (one.drop.value, one.number),
    }
    for key, value in values.items():
        assert orders[key] == [one.number for one in sorted(front, key=value)]
    assert len({tuple(order) for order in orders.values()}) == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("place", "width"), [("laptop", LAPTOP), ("phone", PHONE)])
def test_screenshot_of_a_search_is_kept_and_shows_its_theme(
    tmp_path: Path, place: str, width: int, scheme: str
) -> None:
    data: ReportData = RESULTS["dozen"]()
    SCREENSHOTS.mkdir(exist_ok=True)
    picture = SCREENSHOTS / f"search_{place}_{scheme}.png"
    height = 4000  # the search's part of the page
    window = f"--window-size={max(width, 500)},{height}"
    run_chromium(tmp_path, wrap(tmp_path, data, width, height, scheme), window, f"--screenshot={picture}")
    pixels = matplotlib.image.imread(picture)[:, :width, :3]  # (height, width, colours), 0 to 1
    assert (pixels.mean() > 0.7) == (scheme == "light")
    assert pixels.std() > 0.05
