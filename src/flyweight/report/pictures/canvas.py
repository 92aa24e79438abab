"""The sheet that every picture is drawn on: text stays text, colours are the page's, same data give same bytes."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import matplotlib
from matplotlib.figure import Figure

# Stand-ins that matplotlib draws with; in the finished SVG each is the CSS variable beside it, so that one picture
# serves the light and the dark page.
INK, MUTED, GRID = "#010203", "#010204", "#010205"
BEFORE, EXPORTED, AFTER = "#010206", "#010207", "#010208"
LIMIT, SURFACE = "#010209", "#01020a"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    BEFORE: "var(--before)",
    EXPORTED: "var(--exported)",
    AFTER: "var(--after)",
    LIMIT: "var(--limit)",
    SURFACE: "var(--surface)",
}
ROLE_COLOURS = {"before": BEFORE, "exported": EXPORTED, "after": AFTER}
#: A picture is drawn for a wide place and again for a phone: shrinking one to the other makes its text unreadable.
NARROW = 500
_TIP = "tip: "
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a table called "price_$_band" is a name, not a formula
    "font.family": "DejaVu Sans",  # measured with; the page's own font is set in its stead
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "grid.color": GRID,
    "grid.linewidth": 1.0,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Margins:
    """Room around the axes, in pixels."""

    left: float = 56
    right: float = 16
    top: float = 16
    bottom: float = 44


def draw(name: str, label: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """Return an inline SVG of `size` pixels that `paint` draws on an empty figure.

    Args:
        name: letters and dashes; identifiers in the SVG begin with it, so that several stand on one page.
        label: what the picture shows, for a reader who cannot see it.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72)  # 72 dots an inch: one point is one pixel
        paint(figure)
        text = io.StringIO()
        undated = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=undated)
    return _for_the_page(text.getvalue(), name, label)


def place_axes(figure: Figure, margins: Margins) -> Any:
    """Return axes that fill the figure but for margins in pixels."""
    width, height = figure.get_size_inches() * 72
    return figure.add_axes(
        (
            margins.left / width,
            margins.bottom / height,
            (width - margins.left - margins.right) / width,
            (height - margins.top - margins.bottom) / height,
        )
    )


def tell(artist: Any, words: str) -> None:
    """Say something of an artist where the pointer rests on it; browsers show an SVG's titles without any script."""
    artist.set_gid(_TIP + words)


def shortened(name: str, length: int) -> str:
    """Return a name of at most `length` letters, its middle left out: both ends tell tables apart.

    Example:
        >>> shortened("embeddings.household_x_manufacturer.weight", 24)
        'embeddings.h...er.weight'
    """
    if len(name) <= length:
        return name
    head = (length - 3 + 1) // 2
    return f"{name[:head]}...{name[len(name) - (length - 3 - head) :]}"


def _for_the_page(svg: str, name: str, label: str) -> str:
    """Strip what belongs to a file of its own, and turn colours, fonts and identifiers into the page's."""
    tips: list[str] = []
    svg = re.sub(f'<g id="{_TIP}([^"]*)">', lambda m: f'<g class="tip-{_place(m[1], tips)}">', svg[svg.index("<svg") :])
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="([^"]*)"', r"\1", svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    used = list(dict.fromkeys(re.findall(r'(?:url\(|href=")#([\w.-]+)', svg)))
    short = {long: f"{name}-{place}" for place, long in enumerate(used)}
    svg = re.sub(r' id="([\w.-]+)"', lambda m: f' id="{short[m[1]]}"' if m[1] in short else "", svg)
    svg = re.sub(r'(url\(|href=")#([\w.-]+)', lambda m: f"{m[1]}#{short[m[2]]}", svg)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(f": {stand_in}", f": {variable}")
    svg = _without_idle_parts(re.sub(r"\n\s*", "\n", svg).replace(" \n", " ").strip())
    svg = _with_styled_markers(svg)
    # Last, so that no rule above reads the user's words; an escaped attribute is also escaped text.
    svg = re.sub(r'<g class="tip-(\d+)">', lambda m: f'<g class="tip"><title>{tips[int(m[1])]}</title>', svg)
    return svg.replace("<svg", f'<svg role="img" aria-label={quoteattr(label)}', 1)


def _place(words: str, tips: list[str]) -> int:
    """Add words to a list and return their place in it."""
    tips.append(words)
    return len(tips) - 1


def _without_idle_parts(svg: str) -> str:
    """Drop what is not seen: frames, groups that say nothing, turns by no angle, digits beyond a tenth of a pixel."""
    places = r' (?:d|x|y|x1|y1|width|height|transform)="[^"]*"'
    svg = re.sub(places, lambda attribute: re.sub(r"\d+\.\d\d+", _tenths, attribute[0]), svg)
    svg = re.sub(r'<path d="[^"]*" style="fill: none"/>\n?', "", svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", svg)
    svg = re.sub(r"font-family: inherit; |; stroke-linecap: \w+", "", svg)
    return re.sub(r"\n+", "\n", _without_plain_groups(svg))


def _with_styled_markers(svg: str) -> str:
    """Give a marker its style once, where all its uses have the same, instead of with each use."""
    styles: dict[str, set[str]] = {}
    for name, style in re.findall(r'<use xlink:href="#([\w-]+)"[^>]*? style="([^"]*)"/>', svg):
        styles.setdefault(name, set()).add(style)
    shared = {name: found.pop() for name, found in styles.items() if len(found) == 1}

    def drawn(path: re.Match[str]) -> str:
        return f'{path[1]} style="{shared[path[2]]}"/>' if path[2] in shared else path[0]

    svg = re.sub(r'(<path id="([\w-]+)"[^>]*?) style="[^"]*"/>', drawn, svg)
    return re.sub(
        r'(<use xlink:href="#([\w-]+)"[^>]*?) style="[^"]*"/>',
        lambda use: f"{use[1]}/>" if use[2] in shared else use[0],
        svg,
    )


def _without_plain_groups(svg: str) -> str:
    """Drop groups that have no attribute, keeping what they hold."""
    kept: list[bool] = []

    def judged(tag: re.Match[str]) -> str:
        if tag[0].endswith("/>"):
            return ""
        if tag[0] == "</g>":
            return tag[0] if kept.pop() else ""
        kept.append(tag[0] != "<g>")
        return tag[0] if kept[-1] else ""

    return re.sub(r"</?g(?: [^>]*)?/?>", judged, svg)


def _tenths(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")
