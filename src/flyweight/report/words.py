"""Numbers as a person reads them: bytes, ratios, times, counts."""

from collections.abc import Mapping

#: The name under which rewrites count the operators that read a request alone and moved to it.
REQUEST_ONLY = "request only"
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_COUNTS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def bytes_in_words(count: float) -> str:
    """Return bytes in decimal units, three figures or so.

    Example:
        >>> bytes_in_words(187_000_000), bytes_in_words(541_300), bytes_in_words(96)
        ('187.0 MB', '541.3 kB', '96 B')
    """
    return _scaled(count, _SIZES) if abs(count) >= 1000 else f"{count:.0f} B"


def count_in_words(count: float) -> str:
    """Return a count with a unit prefix.

    Example:
        >>> count_in_words(2_900_000), count_in_words(512)
        ('2.9 M', '512')
    """
    return _scaled(count, _COUNTS) if abs(count) >= 1000 else f"{count:.0f}"


def ratio_in_words(ratio: float) -> str:
    """Return how many times smaller or faster, with two or three figures.

    Example:
        >>> ratio_in_words(487.3), ratio_in_words(31.6), ratio_in_words(5.28)
        ('487x', '32x', '5.3x')
    """
    if ratio != ratio or ratio == float("inf"):
        return "-"
    return f"{ratio:,.0f}x" if ratio >= 9.95 else f"{ratio:.1f}x" if ratio >= 0.95 else f"{ratio:.2f}x"


def divided(before: float, after: float) -> str:
    """Return before / after as a ratio in words, "-" where there is nothing to divide.

    Example:
        >>> divided(187_000_000, 540_000), divided(5, 0)
        ('346x', '-')
    """
    return ratio_in_words(before / after) if before > 0 and after > 0 else "-"


def milliseconds_in_words(milliseconds: float) -> str:
    """Return a time with three figures.

    Example:
        >>> milliseconds_in_words(0.787), milliseconds_in_words(10.68), milliseconds_in_words(1234.0)
        ('0.79 ms', '10.7 ms', '1,234 ms')
    """
    digits = 3 if milliseconds < 0.1 else 2 if milliseconds < 10 else 1 if milliseconds < 100 else 0
    return f"{milliseconds:,.{digits}f} ms"


def seconds_in_words(seconds: float) -> str:
    """Return a duration.

    Example:
        >>> seconds_in_words(4.21), seconds_in_words(75)
        ('4.2 s', '1 min 15 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def signed(value: float) -> str:
    """Return a drop with its sign and four places; more where it is smaller than they can show.

    Example:
        >>> signed(0.0002), signed(-0.00312), signed(0.00001), signed(0.0)
        ('+0.0002', '-0.0031', '+1e-05', '0.0000')
    """
    if value == 0:
        return "0.0000"
    return f"{value:+.1g}" if abs(value) < 0.00005 else f"{value:+.4f}"


def rewrites_in_words(rules: Mapping[str, int]) -> str:
    """Return the rewrites that were done, by rule and how often, as a sentence; nothing for none.

    Example:
        >>> rewrites_in_words({"request only": 12, "split linear": 2})
        'Each request is worked out once: 12 operators; split linear x 2'
        >>> rewrites_in_words({"flat layers": 1})
        'Rewritten: flat layers x 1'
    """
    applied = [f"{rule} x {times}" for rule, times in rules.items() if rule != REQUEST_ONLY]
    if REQUEST_ONLY in rules:
        return "; ".join([f"Each request is worked out once: {operators_in_words(rules[REQUEST_ONLY])}", *applied])
    return f"Rewritten: {'; '.join(applied)}" if applied else ""


def operators_in_words(count: int) -> str:
    """Return a number of operators.

    Example:
        >>> operators_in_words(1), operators_in_words(1200)
        ('1 operator', '1,200 operators')
    """
    return f"{count:,} operator{'' if count == 1 else 's'}"


def metric_in_words(name: str) -> str:
    """Return a metric's name as it is written in prose.

    Example:
        >>> metric_in_words("auc"), metric_in_words("logloss"), metric_in_words("ndcg@10")
        ('AUC', 'logloss', 'NDCG@10')
    """
    family, at, cut = name.partition("@")
    capital = {"auc": "AUC", "gauc": "GAUC", "ndcg": "NDCG", "rmse": "RMSE", "f1": "F1", "ece": "ECE"}
    return capital.get(family, family.replace("_", " ")) + at + cut


def _scaled(count: float, units: tuple[tuple[float, str], ...]) -> str:
    # 999,960 is 1.0 M and not 1000.0 k: the unit is chosen on the rounded figure.
    size, unit = next((pair for pair in units if abs(count) >= 0.99995 * pair[0]), units[-1])
    return f"{count / size:,.1f} {unit}"
