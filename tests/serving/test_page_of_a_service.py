"""The page at `/` in a real browser: what it shows, sending a request by keyboard, hostile names, narrow screens."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import orjson
import pytest
import tiny_models
from browser_tab import CHROMIUM, Tab, opened_tab
from running_service import Service, body_of, request, scores_of, started

from flyweight.bundle.write import write_bundle

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs headless Chromium (Debian: apt-get install chromium)"),
]
SCREENSHOTS = Path(__file__).parent.parent / "screenshots"
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>" + "x" * 120
TOKEN = "page-" + "p" * 20


@pytest.fixture(scope="module")
def page_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A guarded service of a bundle with a hostile name, and of one that takes no candidates."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "tokens").write_text(f"{TOKEN}\n")
    made = tiny_models.contents(folder / "export", proto=tiny_models.hoisted_ranker(), name=HOSTILE)
    bundle = write_bundle(folder / "ranker.fly", made)
    with started(bundle, f"other={bundle}", "--token-file", folder / "tokens", "--drain", "0") as running:
        body = orjson.dumps(body_of(request(20)))
        for _ in range(30):
            assert running.ask("POST", "/v2/models/ranker/infer", body, authorization=f"Bearer {TOKEN}")[0] == 200
        running.ask("POST", "/v2/models/ranker/infer", b"{", authorization=f"Bearer {TOKEN}")
        yield running


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory, page_service: Service) -> Iterator[Tab]:
    """The page, unlocked with a token."""
    with opened_tab(tmp_path_factory.mktemp("chromium")) as opened:
        opened.look(1280)
        opened.open(f"http://{page_service.http}/")
        opened.wait_for("document.getElementById('unlock')?.hidden === false")
        assert opened.value("document.getElementById('served').hidden") is True
        opened.value("document.getElementById('token').focus()")
        opened.write(TOKEN)
        opened.press("Enter")
        opened.wait_for("document.getElementById('body').value.includes('candidates')")
        yield opened


def test_page_shows_bundles_certificate_and_live_charts(tab: Tab) -> None:
    drawn = "[...document.querySelectorAll('svg .line')].filter((e) => e.getAttribute('d').startsWith('M')).length"
    tab.wait_for(f"{drawn} >= 6")  # requests of both models; refusals and the latency's three of the one that was asked
    text = tab.wait_for("document.body.innerText")
    count = f"n = {tiny_models.evidence(10).certificate.n:,}"
    for shown in ("Serving 2 models", "Live", "ranker", "onnxruntime", "drop", "p99", "30\n1 refused", count):
        assert shown in text
    label = tab.value("document.querySelector('svg.chart').getAttribute('aria-label')")
    assert label.startswith("Latency of the last five minutes: p50 ")


def test_hostile_names_are_text(tab: Tab) -> None:
    assert tab.value("document.querySelector('.about').textContent").startswith(HOSTILE)
    assert tab.value("document.images.length + document.querySelectorAll('main script').length") == 0
    assert "taken" not in tab.value("document.title")


def test_request_is_sent_by_keyboard_and_its_ranking_is_the_models(tab: Tab) -> None:
    tab.value("document.getElementById('body').focus()")
    tab.press("Tab")
    assert tab.value("document.activeElement.id") == "send"
    sent = orjson.loads(tab.value("document.getElementById('body').value"))
    tab.press("Enter")
    tab.wait_for("document.querySelectorAll('#ranked tbody tr').length")
    arrays = {"user_id": [sent["request"]["user_id"]]}
    arrays |= {name: [one[name] for one in sent["candidates"]] for name in ("item_id", "price")}
    scores = scores_of({name: tiny_models.np.array(values) for name, values in arrays.items()})
    shown = tab.value("[...document.querySelectorAll('#ranked tbody tr')].map((row) => row.innerText)")
    assert len(shown) == len(sent["candidates"])
    best = int(scores.argmax())
    assert f"candidate {best + 1}\n" in shown[0]
    found = [float(row.split("\t")[-1].split("\n")[0]) for row in shown]
    assert found == pytest.approx(sorted(scores, reverse=True), rel=1e-3)


def test_refusal_and_broken_json_are_told(tab: Tab) -> None:
    for body, said in (("{", "The request is no JSON"), ('{"model": "ranker", "candidates": []}', "an empty list")):
        tab.value(f"document.getElementById('body').value = {orjson.dumps(body).decode()}")
        tab.value("document.getElementById('send').click()")
        assert said in tab.wait_for(f"document.getElementById('outcome').textContent.includes({said!r}) && "
                                    "document.getElementById('outcome').textContent")  # fmt: skip
        assert tab.value("document.getElementById('outcome').className") == "bad"
    tab.complaints.clear()  # Chromium logs the 400 itself


def test_chart_tells_of_earlier_moments_by_keys(tab: Tab) -> None:
    tab.value("document.querySelector('svg.chart').focus()")
    tab.press("ArrowLeft")
    assert "5 s ago" in tab.value("document.querySelector('.when').textContent")
    tab.press("Escape")
    assert tab.value("document.querySelector('.when').textContent") == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_its_width_and_takes_its_theme(tab: Tab, width: int, scheme: str) -> None:
    tab.look(width, 900, scheme)
    tab.value("document.getElementById('sample').dispatchEvent(new Event('change'))")
    tab.value("document.getElementById('send').click()")
    tab.wait_for("document.querySelectorAll('#ranked tbody tr').length")
    assert tab.value("document.documentElement.scrollWidth") == width
    outside = "[...document.querySelectorAll('main *')].filter((e) => !e.closest('svg, textarea') && " \
        "e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML.slice(0, 80))"  # fmt: skip
    assert tab.value(outside) == []
    SCREENSHOTS.mkdir(exist_ok=True)
    tab.look(width, tab.value("document.documentElement.scrollHeight"), scheme)
    picture = SCREENSHOTS / f"serving_{width}_{scheme}.png"
    tab.picture(picture)
    pixels = matplotlib.image.imread(picture)[:, :, :3]  # (height, width, colours), 0 to 1
    assert pixels.shape[1] == width
    assert (pixels.mean() > 0.7) == (scheme == "light")
    assert tab.complaints == []
