"""The page as text: whole, self-contained, repeatable, and safe with any name."""

import re
from html.parser import HTMLParser

import pytest
from example_result import make_bare_result, make_hostile_result, make_result

from flyweight.report.page import render_page

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Outline(HTMLParser):
    """Checks that elements close in order, and collects element names and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(make_result())


def test_page_closes_what_it_opens(page: str) -> None:
    assert Outline(page).open == []


def test_page_asks_nothing_of_a_network(page: str) -> None:
    outline = Outline(page)
    assert not {name for name, _ in outline.elements} & {"script", "link", "img", "iframe", "object"}
    given = [pair for _, attributes in outline.elements for pair in attributes.items()]
    addresses = [value or "" for key, value in given if "href" in key or key == "src"]
    assert all(address.startswith("#") for address in addresses)
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_page_is_the_same_each_time(page: str) -> None:
    assert render_page(make_result()) == page


def test_page_begins_with_the_verdict_and_ends_with_how_it_was_measured(page: str) -> None:
    order = ["Certified", "<h1>", 'class="compare"', 'id="tables"', 'id="curve"', 'id="calibration"', 'id="scores"',
             'id="latency"', 'id="skipped"', 'id="measured"']  # fmt: skip
    places = [page.index(mark, page.index("<body>")) for mark in order]
    assert places == sorted(places)


def test_page_tells_machine_versions_rounds_seed_and_method(page: str) -> None:
    facts = ("Xeon", "onnxruntime 1.32.0", "200 rounds", "seed 0", "draws whole groups", "2,000 resamples", "test rows")
    for words in facts:
        assert words in page


def test_page_shows_every_skipped_thing_and_every_table(page: str) -> None:
    for item in make_result().skipped:
        assert item.what in page
        assert item.why in page
    for row in make_result().tables:
        assert row.name in page
        assert row.coding in page


def test_names_are_escaped() -> None:
    page = render_page(make_hostile_result())
    outline = Outline(page)
    assert outline.open == []
    assert "script" not in {name for name, _ in outline.elements}
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page


def test_page_of_a_bare_result_leaves_out_what_is_unknown() -> None:
    page = render_page(make_bare_result())
    assert Outline(page).open == []
    assert not re.search(r'id="(tables|curve|scores|latency)"', page)
    assert "Nothing was skipped." in page


def test_page_says_what_became_of_each_layer() -> None:
    page = render_page(make_result())
    assert "What became of the layers" in page
    assert "The weights of 4 layers: 1.2 MB, now 178.8 kB." in page
    assert "taken out" in page
    assert "What became of the layers" not in render_page(make_bare_result())
