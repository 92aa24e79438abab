"""Names under which servers know a model: a folder, a part of an address, a Kubernetes object."""

import re
from pathlib import Path

from flyweight.errors import InputError

#: Safe as a folder, in an address and in every server's configuration.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
#: What Kubernetes takes as the name of a service (RFC 1035), of 63 letters with KServe's "-predictor" behind it
#: (kserve/kserve#4208).
_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")
#: Versions are folders of whole numbers, which Triton and OpenVINO Model Server read as 64-bit ones.
_LAST_VERSION = 2**31 - 1


def model_name(bundle: Path, name: str | None, *, as_label: bool = False) -> str:
    """Return the name to serve a bundle under: the one given, or that of its folder with other characters as dashes.

    Args:
        as_label: as Kubernetes takes it: lower case letters, digits and dashes.

    Raises:
        InputError: the name given cannot be a folder and a part of an address, or a label.

    Example:
        >>> model_name(Path("out/My ranker_2.fly"), None), model_name(Path("out/My ranker_2.fly"), None, as_label=True)
        ('My-ranker_2', 'my-ranker-2')
    """
    pattern, most = (_LABEL, 53) if as_label else (_NAME, 63)
    if name is not None:
        if not pattern.fullmatch(name):
            due = "lower case letters, digits and -" if as_label else "letters, digits, and . _ - after the first"
            raise InputError(f"{name[:80]!r} cannot name a served model; give 1 to {most} {due} (name=, --name).")
        return name
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", bundle.resolve().name.removesuffix(".fly")).strip("._-")[:most]
    if as_label:
        stem = re.sub(r"[._]+", "-", stem.lower()).strip("-")
    if not pattern.fullmatch(stem):
        raise InputError(f"{bundle} gives no name to serve the model under; give one (name=, --name).")
    return stem


def checked_version(version: int) -> int:
    """Return a version that servers take as a folder's name.

    Raises:
        InputError: it is no whole number from 1 on.
    """
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= _LAST_VERSION:
        raise InputError(f"A model's version is a whole number from 1 to {_LAST_VERSION:,}; seen {version!r}.")
    return version
