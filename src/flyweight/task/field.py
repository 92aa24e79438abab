"""One named input of a model: its role in a request and, for ids, the size of its vocabulary."""

from dataclasses import dataclass
from typing import Literal, get_args

from flyweight.errors import InputError

Role = Literal["request", "candidate", "sample"]
#: Name of the input of a hoisted model that says which request each row belongs to; left out, all belong to the first.
REQUEST_INDEX = "request_index"


@dataclass(frozen=True)
class Field:
    """An input of the model.

    Args:
        role: "request" is the same for every candidate of one request (a user, a context), "candidate" varies
            from candidate to candidate (an item, a price), "sample" is a plain batch row (images, text).
        rows: for an id field the size of its vocabulary, so that every id lies in [0, rows); None for a dense field.

    Raises:
        InputError: the role is none of the three, or `rows` is not a positive whole number.

    Example:
        >>> Field(role="candidate", rows=68_509).is_id
        True
    """

    role: Role = "sample"
    rows: int | None = None

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise InputError(f'Field role {self.role!r} is unknown; use one of "request", "candidate", "sample".')
        if self.rows is not None and (isinstance(self.rows, bool) or not isinstance(self.rows, int) or self.rows < 1):
            raise InputError(
                f"Field rows must be a positive whole number, the size of the vocabulary; seen {self.rows!r}. "
                "Leave rows out for a dense field."
            )

    @property
    def is_id(self) -> bool:
        """Whether the field holds ids of a vocabulary (it has `rows`)."""
        return self.rows is not None
