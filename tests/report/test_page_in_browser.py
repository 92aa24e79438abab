"""The page in a real browser, at the width of a laptop and of a phone: pictures are there, nothing overflows."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from example_result import make_bare_result, make_hostile_result, make_result

from flyweight.report.data import ReportData
from flyweight.report.page import render_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCREENSHOTS = Path(__file__).parent.parent / "screenshots"
LAPTOP, PHONE = 1280, 390
RESULTS = {"full": make_result, "bare": make_bare_result, "hostile": make_hostile_result}
PICTURES = {"full": 6, "bare": 0, "hostile": 6}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs headless Chromium (Debian: apt-get install chromium)"),
]

# The window cannot be made as narrow as a phone, a frame can: the page lies in a frame of the wanted width, whose
# colour scheme it follows, and the outer page measures it.
WRAPPER = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="f" style="border:0;display:block;width:{width}px;height:{height}px;color-scheme:{scheme}" srcdoc="{page}">
</iframe><pre id="measured"></pre><script>
addEventListener("load", () => {{
  const page = document.getElementById("f").contentDocument, root = page.documentElement;
  const box = (e) => {{ const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; }};
  const name = (e) => e.tagName + "." + (e.getAttribute("class") || "") + " " + e.textContent.trim().slice(0, 40);
  const folded = root.offsetHeight;
  const first = page.querySelector(".compare").getBoundingClientRect().top;
  if ({unfold}) page.querySelectorAll("details").forEach((e) => e.open = true);
  const drawn = [...page.querySelectorAll(".drawing svg")].filter((e) => e.getBoundingClientRect().width > 0);
  const report = {{
    width: root.clientWidth, scroll: root.scrollWidth, height: folded, table_top: first,
    scripts: page.scripts.length,
    pictures: drawn.map(box),
    outside: [...page.body.querySelectorAll("*")].filter((e) => !e.closest("svg"))
      .filter((e) => e.getBoundingClientRect().right > root.clientWidth + 0.5).map(name),
    cut: drawn.flatMap((svg) => [...svg.querySelectorAll("text")].filter((e) => {{
      const a = box(e), b = box(svg);
      return a[0] < b[0] - 1 || a[1] < b[1] - 1 || a[2] > b[2] + 1 || a[3] > b[3] + 1;
    }}).map(name)),
    letters: drawn.flatMap((svg) => [...svg.querySelectorAll("text")].map((e) =>
      parseFloat(getComputedStyle(e).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)),
  }};
  document.getElementById("measured").textContent = JSON.stringify(report);
}});
</script></body>"""


def run_chromium(folder: Path, address: str, *options: str) -> str:
    """Run Chromium once with a fresh profile and return what it printed."""
    assert CHROMIUM is not None
    quiet = ("quic", "background-networking", "component-update", "sync", "gpu", "extensions")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", "--hide-scrollbars"]
    command += [*(f"--disable-{name}" for name in quiet), f"--user-data-dir={folder / 'profile'}", *options, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def wrap(folder: Path, data: ReportData, width: int, height: int, scheme: str, unfold: bool = False) -> str:
    """Write the outer page and return its address."""
    page = html.escape(render_page(data), quote=True)
    path = folder / f"wrapper_{width}_{scheme}.html"
    unfolds = str(unfold).lower()
    path.write_text(WRAPPER.format(width=width, height=height, scheme=scheme, page=page, unfold=unfolds))
    return path.as_uri()


def measure(folder: Path, data: ReportData, width: int, *, unfold: bool = False) -> dict[str, Any]:
    printed = run_chromium(folder, wrap(folder, data, width, 900, "light", unfold), "--dump-dom")
    found = re.search(r'<pre id="measured">(.+?)</pre>', printed, re.DOTALL)
    assert found, printed[-500:]
    return dict(json.loads(html.unescape(found[1])))


@pytest.mark.parametrize("width", [LAPTOP, PHONE])
@pytest.mark.parametrize("name", RESULTS)
def test_page_holds_its_pictures_and_overflows_nowhere(tmp_path: Path, name: str, width: int) -> None:
    seen = measure(tmp_path, RESULTS[name](), width, unfold=True)
    assert seen["width"] == width
    assert seen["scroll"] <= width, f"the page scrolls sideways: {seen['scroll']} px"
    assert seen["outside"] == []
    assert seen["cut"] == [], "text of a picture reaches over its edge"
    assert seen["scripts"] == 0
    assert len(seen["pictures"]) == PICTURES[name]
    for left, top, right, bottom in seen["pictures"]:
        assert right - left > 0.6 * min(width, 480)
        assert bottom - top > 60
    assert all(size > 9.5 for size in seen["letters"]), "text of a picture is too small to read"


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """The page as it is first seen, nothing unfolded, by width."""
    return {width: measure(tmp_path_factory.mktemp("folded"), make_result(), width) for width in (LAPTOP, PHONE)}


def test_laptop_shows_verdict_and_table_on_the_first_screen(folded: dict[int, dict[str, Any]]) -> None:
    assert folded[LAPTOP]["table_top"] < 500


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("place", "width"), [("laptop", LAPTOP), ("phone", PHONE)])
def test_screenshot_is_kept_and_shows_its_theme(
    tmp_path: Path, folded: dict[int, dict[str, Any]], place: str, width: int, scheme: str
) -> None:
    data, height = make_result(), folded[width]["height"]
    SCREENSHOTS.mkdir(exist_ok=True)
    picture = SCREENSHOTS / f"report_{place}_{scheme}.png"
    window = f"--window-size={max(width, 500)},{height}"  # Chromium opens no window narrower than 500
    run_chromium(tmp_path, wrap(tmp_path, data, width, height, scheme), window, f"--screenshot={picture}")
    pixels = matplotlib.image.imread(picture)[:height, :width, :3]  # (height, width, colours), 0 to 1
    assert pixels.shape[1] == width
    assert (pixels.mean() > 0.7) == (scheme == "light")
    assert pixels.std() > 0.05
