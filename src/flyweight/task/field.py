"""One named input of a model: its role in a request and, for ids, the size of its vocabulary."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from flyweight.errors import InputError
from flyweight.task.raw_values import RawValues, vocabulary_of

Role = Literal["request", "candidate", "sample"]
#: Name of the input of a hoisted model that says which request each row belongs to; left out, all belong to the first.
REQUEST_INDEX = "request_index"
#: What a hoisted file calls the first dimension of request fields, and that of the index: 1, or as long as the rows.
REQUESTS, SPREAD_ROWS = "requests", "spread"


@dataclass(frozen=True)
class Field:
    """An input of the model.

    Args:
        role: "request" is the same for every candidate of one request (a user, a context), "candidate" varies
            from candidate to candidate (an item, a price), "sample" is a plain batch row (images, text).
        rows: for an id field the size of its vocabulary, so that every id lies in [0, rows); None for a dense field.
        unknown: the id of values that the vocabulary does not hold, as the model was trained to read it; a served id
            out of range is then taken for this one and counted. None refuses it.
        vocabulary: the raw values, strings or whole numbers of a shop's own, in the order of their ids (None for that
            of unknown ones), or a mapping from each to its id. The bundle carries them, and can then be asked with
            them. A `Vocabulary` from then on.

    Raises:
        InputError: the role is none of the three, `rows` is not a positive whole number, or `unknown` is no id; a raw
            value is neither string nor whole number, or there twice, or has no row.

    Example:
        >>> Field(role="candidate", rows=68_509).is_id
        True
    """

    role: Role = "sample"
    rows: int | None = None
    unknown: int | None = None
    # Not shown nor compared: it says how the model is asked, not what the model is.
    vocabulary: RawValues | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise InputError(f'Field role {self.role!r} is unknown; use one of "request", "candidate", "sample".')
        if self.rows is not None and (isinstance(self.rows, bool) or not isinstance(self.rows, int) or self.rows < 1):
            raise InputError(
                f"Field rows must be a positive whole number, the size of the vocabulary; seen {self.rows!r}. "
                "Leave rows out for a dense field."
            )
        if self.unknown is not None and not self._is_known(self.unknown):
            raise InputError(
                f"Field unknown must be an id from 0 to rows - 1; seen {self.unknown!r} with rows={self.rows}. "
                "Leave it out to refuse ids that the vocabulary does not hold."
            )
        if self.vocabulary is not None:
            if self.rows is None:
                raise InputError("A vocabulary belongs to a field of ids; give rows= with it, the rows of its table.")
            object.__setattr__(self, "vocabulary", vocabulary_of(self.vocabulary, self.rows, self.unknown))

    def _is_known(self, id: object) -> bool:
        return isinstance(id, int) and not isinstance(id, bool) and self.rows is not None and 0 <= id < self.rows

    @property
    def is_id(self) -> bool:
        """Whether the field holds ids of a vocabulary (it has `rows`)."""
        return self.rows is not None
