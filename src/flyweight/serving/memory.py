"""How much memory this process holds, and what its share is of what it holds with others."""

import re
from pathlib import Path

_LINE = re.compile(r"^(Rss|Pss):\s+(\d+) kB$", re.MULTILINE)


def own_memory() -> dict[str, int]:
    """Return bytes resident ("rss") and bytes with shared pages divided among their users ("pss"); {} where unknown.

    Source: Linux kernel, Documentation/filesystems/proc.rst, smaps_rollup.
    """
    try:
        text = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return {}
    return {name.lower(): int(kilobytes) * 1024 for name, kilobytes in _LINE.findall(text)}
