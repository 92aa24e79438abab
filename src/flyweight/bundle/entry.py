"""What every record in a bundle's JSON is: typed, strict, frozen, and free of NaN and control characters."""

import math
from dataclasses import fields, is_dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

#: No control characters: what a bundle says is printed on terminals.
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=_PRINTABLE)]
Text = Annotated[str, StringConstraints(max_length=8192, pattern=_PRINTABLE)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]


class Entry(BaseModel):
    """A record of the manifest or the timing file; built from JSON, or in code from the dataclasses of `task`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="null")

    @model_validator(mode="before")
    @classmethod
    def _from_code(cls, value: Any) -> Any:
        return as_json(value) if is_dataclass(value) else value


class File(Entry):
    """Size and hash of a file of the bundle."""

    bytes: Count
    sha256: Sha256


def as_json(value: Any) -> Any:
    """Return dataclasses, NumPy values, tuples and entries as plain JSON values; NaN and infinity become None.

    Line breaks and control characters in texts become spaces.

    Example:
        >>> as_json((np.float32(0.5), float("nan"), "two\\nlines"))
        [0.5, None, 'two lines']
    """
    if isinstance(value, BaseModel):
        return value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return as_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return "".join(" " if ord(sign) < 32 or 127 <= ord(sign) < 160 else sign for sign in value)
    return value
