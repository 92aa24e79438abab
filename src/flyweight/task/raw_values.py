"""What a user gives as the raw values of a field, checked, as its vocabulary."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flyweight.errors import InputError
from flyweight.task.vocabulary import Vocabulary, make_vocabulary

#: Raw values in the order of their ids, or the id of each.
RawValues = Vocabulary | Sequence[Any] | Mapping[Any, int]


def vocabulary_of(given: Any, rows: int, unknown: int | None) -> Vocabulary:
    """Return the vocabulary that a user means.

    Args:
        given: strings or whole numbers in the order of their ids (a list, an array, a column), None for the row of
            unknown values; or a mapping from each to its id, in which several may share one.
        rows: ids lie in [0, rows).
        unknown: the id of values outside of the vocabulary, if there is one.

    Raises:
        InputError: a value is neither, or there twice, an id is out of range, or there are more values than rows.

    Example:
        >>> vocabulary_of([None, "red", "blue"], rows=3, unknown=0).ids_of(["blue"]).tolist()
        [2]
    """
    if isinstance(given, Vocabulary):
        _check_ids(given.ids.tolist(), rows)
        return given
    if isinstance(given, Mapping):
        ids = list(given.values())
        _check_ids(ids, rows)
        return _made(list(given), ids)
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise InputError(
            f"A vocabulary is a list of raw values in the order of their ids, or a mapping from each to its id; seen "
            f"{type(given).__name__}."
        )
    values = given.tolist() if isinstance(given, np.ndarray) else list(given)
    if len(values) > rows:
        raise InputError(f"The vocabulary has {len(values):,} values and rows={rows:,}; the last have no row.")
    ids = list(range(len(values)))
    if unknown is not None and unknown < len(values) and values[unknown] is None:
        del values[unknown], ids[unknown]
    return _made(values, ids)


def _made(values: list[Any], ids: list[int]) -> Vocabulary:
    texts = _texts(values, ids)
    if len(set(texts)) < len(texts):
        _refuse_twins(texts, ids)
    return make_vocabulary(texts, ids)


def _texts(values: list[Any], ids: list[int]) -> list[str]:
    """Return strings as they are and whole numbers as their decimal text."""
    kinds = set(map(type, values))
    if kinds <= {str}:
        return values
    if kinds <= {int}:
        return list(map(str, values))
    return [_text(value, id_) for value, id_ in zip(values, ids, strict=True)]


def _text(value: Any, id_: int) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(int(value))
    hints = {
        "NoneType": "; only the row of unknown values, Field(..., unknown=...), may have none",
        "float": "; give whole numbers as such",
        "bytes": "; decode them",
    }
    seen = "NaN" if value != value else f"{value!r:.60}"
    raise InputError(
        f"Raw values are strings or whole numbers; that of id {id_} is {seen}, {type(value).__name__}"
        f"{hints.get(type(value).__name__, '')}."
    )


def _refuse_twins(texts: list[str], ids: list[int]) -> None:
    first: dict[str, int] = {}
    for text, id_ in zip(texts, ids, strict=True):
        if text in first:
            raise InputError(
                f"The vocabulary holds {text[:60]!r} twice, for ids {first[text]} and {id_}; a whole number is the "
                "same value as its decimal text. Keep one."
            )
        first[text] = id_


def _check_ids(ids: list[Any], rows: int) -> None:
    for id_ in ids:
        if not isinstance(id_, (int, np.integer)) or isinstance(id_, bool):
            raise InputError(f"The ids of a vocabulary are whole numbers; seen {id_!r:.60}.")
    low, high = min(ids, default=0), max(ids, default=0)
    if low < 0 or high >= rows:
        raise InputError(
            f"The vocabulary has ids from {low} to {high}, and they lie from 0 to {rows - 1} (rows={rows}); "
            "give the rows that the model was trained with."
        )
