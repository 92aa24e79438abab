"""An explicit plan: for each table its bands and how each is coded, in plain values that can be written and edited."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from flyweight.errors import InputError
from flyweight.tables.coded_table import page_bits_of
from flyweight.tables.coding import Coding
from flyweight.tables.coding_words import parse_coding
from flyweight.tables.damage import Item
from flyweight.tables.menu import encode_menu, seed_of, way_to
from flyweight.tables.sites import STEP, Table
from flyweight.task.change import Change, Skipped

#: A band of a plan: `stop`, the id after its last row, and `coding`, in the words of the report.
Band = Mapping[str, int | str]
Plan = Mapping[str, Sequence[Band]]
#: What a coded table tells its bands apart by is a byte.
MOST_BANDS = 256


def plan_of(change: Change) -> dict[str, list[dict[str, int | str]]]:
    """Return the plan that a coding of tables chose: `EncodeTables(codings=plan_of(change))` gives the same codes.

    Empty where nothing was coded.

    Example:
        >>> plan_of(EncodeTables(ratio=8).apply(task))  # doctest: +SKIP
        {'item': [{'stop': 400, 'coding': 'one 4-bit code'}]}
    """
    return plan_of_records(change.done) if change.step == STEP else {}


def plan_of_records(records: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, int | str]]]:
    """Return the plan in the records of coded tables, by table name."""
    return {
        str(done["name"]): [{"stop": band["stop"], "coding": band["coding"]} for band in done["bands"]]
        for done in records
        if done["what"] == "table"
    }


def checked_plan(plan: object) -> dict[str, list[dict[str, int | str]]]:
    """Return a copy of a plan, all of it plain.

    Raises:
        InputError: it is no plan in itself, whatever the tables are; names the table and the band.
    """
    if not isinstance(plan, Mapping) or not plan:
        raise InputError(
            "EncodeTables codings must map names of tables to bands, as in "
            f'{{"item": [{{"stop": 400, "coding": "one 4-bit code"}}]}}; seen {_short(plan)}.'
        )
    return {str(name): _checked_bands(str(name), bands) for name, bands in plan.items()}


def _checked_bands(name: str, bands: object) -> list[dict[str, int | str]]:
    if isinstance(bands, (str, Mapping)) or not isinstance(bands, Sequence) or not bands:
        raise InputError(f"Table {name!r} needs a list of bands; seen {_short(bands)}.")
    if len(bands) > MOST_BANDS:
        raise InputError(f"Table {name!r} has {len(bands):,} bands; at most {MOST_BANDS} can be told apart.")
    checked: list[dict[str, int | str]] = []
    before = 0
    for number, band in enumerate(bands, 1):
        where = f"Table {name!r}, band {number}"
        if not isinstance(band, Mapping) or set(band) != {"stop", "coding"}:
            seen = ", ".join(map(str, band)) if isinstance(band, Mapping) else _short(band)
            raise InputError(f"{where}: a band has a stop and a coding, nothing else; seen {seen or 'nothing'}.")
        stop, words = band["stop"], band["coding"]
        if isinstance(stop, bool) or not isinstance(stop, int) or stop <= before:
            raise InputError(f"{where}: stop must be a whole number above {before:,}; seen {stop!r}.")
        if not isinstance(words, str):
            raise InputError(f"{where}: coding must be in words; seen {words!r}.")
        try:
            parse_coding(words)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        checked.append({"stop": stop, "coding": words})
        before = stop
    return checked


def planned_items(
    plan: Plan, tables: tuple[Table, ...], weights: Mapping[str, Tensor], seed: int
) -> tuple[Item, ...]:
    """Encode what a plan names, each band in its coding alone, with the codes that a search would have given it.

    Args:
        plan: one that fits the tables, see `check_fit`.
        tables: all that can be coded, in their order; those that the plan does not name are left out.
        weights: (rows,) of each table.
    """
    items = []
    for number, table in enumerate(tables):
        start = 0
        for band in plan.get(table.name, ()):
            stop, way = int(band["stop"]), way_to(parse_coding(str(band["coding"])))
            rows, weight = table.weight[start:stop], weights[table.name][start:stop]
            *_, coded = encode_menu(rows, weight, way, start=start, seed=seed_of(seed, number))
            items.append(Item(table.name, start, stop, (coded,)))
            start = stop
    return tuple(items)


def check_fit(plan: Plan, tables: tuple[Table, ...], skipped: tuple[Skipped, ...]) -> None:
    """Refuse a plan that does not fit a model's tables.

    Args:
        plan: as `checked_plan` returns it.
        tables: all that can be coded.
        skipped: those that cannot, and why.

    Raises:
        InputError: names table, band, what was seen and what is allowed.
    """
    known = {table.name: table for table in tables}
    reasons = {one.what: one.why for one in skipped}
    for name, bands in plan.items():
        if name in reasons and name not in known:
            raise InputError(f"Table {name!r} cannot be coded: {reasons[name]}. Take it out of codings=.")
        if name not in known:
            near = get_close_matches(name, known, 1, 0.0)
            hint = f"the nearest is {near[0]!r}" if near else "the model has none that can be coded"
            raise InputError(f"There is no table {name!r}; {hint}.")
        _check_cuts(known[name], bands)
        _check_pieces(known[name], [parse_coding(str(band["coding"])) for band in bands])


def _check_cuts(table: Table, bands: Sequence[Band]) -> None:
    page = 1 << page_bits_of(table.rows)
    *inner, last = (int(band["stop"]) for band in bands)
    if last != table.rows:
        raise InputError(
            f"Table {table.name!r} has {table.rows:,} rows, but its bands end at {last:,}; the last stop must be "
            f"{table.rows:,}."
        )
    for number, stop in enumerate(inner, 1):
        if stop % page:
            near = [edge for edge in (stop // page * page, (stop // page + 1) * page) if 0 < edge < table.rows]
            allowed = f"the nearest: {' or '.join(f'{edge:,}' for edge in near)}" if near else "here nowhere"
            raise InputError(
                f"Table {table.name!r}, band {number}: a table of {table.rows:,} rows may be cut at multiples of "
                f"{page}, {allowed}; seen stop {stop:,}."
            )


def _check_pieces(table: Table, codings: Sequence[Coding]) -> None:
    most = max(coding.groups for coding in codings)
    for number, coding in enumerate(codings, 1):
        if table.dim % coding.groups:
            allowed = ", ".join(str(one) for one in range(1, table.dim + 1) if table.dim % one == 0)
            raise InputError(
                f"Table {table.name!r}, band {number}: rows of {table.dim} values cannot be cut into {coding.groups} "
                f"equal pieces; use one of {allowed}."
            )
        if most % coding.groups:
            raise InputError(
                f"Table {table.name!r}, band {number}: {coding.groups} pieces do not divide the {most} of another band "
                "of the table; use numbers of pieces of which each divides the largest."
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
