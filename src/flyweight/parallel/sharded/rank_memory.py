"""Resident memory of this process, at its highest, from /proc."""

import re
from pathlib import Path


def peak_bytes() -> int | None:
    """Return the most memory this process ever had resident since `forget_peak`; None where there is no /proc."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def forget_peak() -> bool:
    """Let the highest be counted from now on; return whether the system allows that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
