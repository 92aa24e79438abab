"""A picture of the page: its two drawings, its heading, and what it says in words."""

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

#: Pixels that pictures are drawn for: a laptop's full and half column, and a phone.
FULL, HALF, PHONE = 1000, 480, 326
#: A map of thousands of rows is drawn once, between a half column and a phone, because it takes most of the page.
SQUARE = 400
PAIR = (("before", "before"), ("after", "after"))


@dataclass(frozen=True)
class Picture:
    """A picture with its heading and what it says in words; `narrow` is its drawing for a phone, where that differs."""

    key: str
    title: str
    words: str
    wide: Markup
    narrow: Markup = Markup("")  # noqa: RUF009 - a str, which never changes
    half: bool = False
    legend: tuple[tuple[str, str], ...] = ()  # (colour's role, word)
    crowded: bool = False


def drawings(paint: Callable[[int], str], wide: int) -> tuple[Markup, Markup]:
    """Return the drawing for a laptop and that for a phone."""
    return Markup(paint(wide)), Markup(paint(PHONE))
