"""Where an export may be written: a free path, or over an older export that nobody has added to."""

import json
from pathlib import Path

from flyweight.bundle.whole_folder import check_writable
from flyweight.errors import InputError

#: Lists what was written; a folder without it is not ours.
RECORD = "flyweight_export.json"
_MAX_RECORD = 2**24


def check_place(place: Path, bundle: Path, *, overwrite: bool) -> None:
    """Find out what would keep an export from being written to a path.

    Raises:
        InputError: it is no name for a folder, lies in the bundle, cannot be written, or exists and `overwrite` is not
            set or it holds what no export of ours has written.
    """
    if not place.name or place.name in (".", ".."):
        raise InputError(f"{str(place)!r} is no name for a folder; give a path that ends in a name.")
    own = bundle.resolve()
    if own in (place.resolve(), *place.resolve().parents):
        raise InputError(f"{place} lies in the bundle {bundle}, which must stay as it is; choose another path.")
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise InputError(f"{place} exists and is no folder; choose another path.")
    check_writable(place)
    if not place.exists():
        return
    if not overwrite:
        raise InputError(f"{place} exists; choose another path, or overwrite it (overwrite=True, --overwrite).")
    odd = _not_ours(place)
    if odd is not None:
        raise InputError(f"{place} {odd}, so it is not overwritten; choose another path.")


def _not_ours(place: Path) -> str | None:
    """Return what of a folder no export has written, None where all of it is an export's."""
    record = place / RECORD
    if record.is_symlink() or not record.is_file() or record.stat().st_size > _MAX_RECORD:
        return f"lacks {RECORD}"
    try:
        listed = json.loads(record.read_bytes())["files"].keys()
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"holds a damaged {RECORD}"
    found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_symlink() or not path.is_dir()}
    odd = sorted(found - set(listed) - {RECORD})
    return f"holds {odd[0]!r}, which no export has written" if odd else None
