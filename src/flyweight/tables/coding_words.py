"""A coding in the words that reports use, read back."""

import re

from flyweight.errors import InputError
from flyweight.tables.coding import Coding

#: Codes are stored in bytes while a table is built; more stages than these cost more than half-precision rows mostly.
MOST_BITS, MOST_STAGES = 8, 8
#: What a coding may be called, for messages.
KNOWN = (
    '"one shared vector", "float16 rows", or codes: "one 4-bit code", "3 4-bit codes", "one 4-bit code for each of 8 '
    f'pieces" (1 to {MOST_BITS} bits, at most {MOST_STAGES} codes)'
)
_CODES = re.compile(r"(one|[1-9][0-9]{0,5}) ([1-9][0-9]{0,5})-bit codes?(?: for each of ([1-9][0-9]{0,5}) pieces)?")


def parse_coding(words: str) -> Coding:
    """Return the coding that `str(coding)` gave.

    Raises:
        InputError: the words are none that a coding is called; says which are.

    Example:
        >>> parse_coding("2 4-bit codes for each of 8 pieces")
        Coding(groups=8, stages=2, bits=4, rounded=False)
    """
    for plain in (Coding(bits=0), Coding(rounded=True)):
        if words == str(plain):
            return plain
    found = _CODES.fullmatch(words)
    if found is None:
        raise InputError(f"coding {words[:80]!r} is unknown; it may be {KNOWN}.")
    stages, bits, groups = (1 if one in ("one", None) else int(one) for one in found.groups())
    if bits > MOST_BITS or stages > MOST_STAGES:
        raise InputError(f"coding {words!r} is too large; it may be {KNOWN}.")
    return Coding(groups, stages, bits)
