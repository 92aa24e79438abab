"""Protocol buffers in their text form, which Triton's `config.pbtxt` is written in.

Writing the few kinds that a configuration has takes no library; reading it back with the published schema is a test's
work (https://protobuf.dev/reference/protobuf/textformat-spec/).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


class Word(str):
    """A name of an enumeration, which stands without quotes."""

    __slots__ = ()


def write_text(fields: Mapping[str, Any]) -> str:
    """Return a message as text.

    Args:
        fields: by name: a text, a number, a truth value, a `Word`, a message as a dict, or a list of these for a
            repeated field.

    Example:
        >>> write_text({"name": "r", "dims": [-1, 3], "input": [{"data_type": Word("TYPE_INT64")}]})
        'name: "r"\\ndims: -1\\ndims: 3\\ninput {\\n  data_type: TYPE_INT64\\n}\\n'
    """
    return "".join(f"{line}\n" for line in _lines(fields, ""))


def _lines(fields: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in fields.items():
        for one in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            if isinstance(one, Mapping):
                yield f"{indent}{name} {{"
                yield from _lines(one, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_spelled(one)}"


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Word) or not isinstance(value, str):
        return str(value)
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    return letter if letter >= " " and letter != "\x7f" else f"\\{ord(letter):03o}"
