"""Resident memory of a running engine, read from /proc in a fresh process that holds nothing else."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from flyweight.errors import EngineError

#: What the fresh process runs. Its own prints go to stderr, so that stdout holds the answer alone.
_PROBE = """
import gc, json, os, re, sys
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
def now(key):
    gc.collect()
    return 1024 * int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))
names, taken = {"__name__": "probe"}, []
for code in json.load(sys.stdin):
    exec(code, names)
    taken.append(now("VmRSS"))
answer.write(json.dumps([*taken, now("VmHWM")]))
"""


@dataclass(frozen=True)
class Resident:
    """Resident memory of a process, in bytes.

    Args:
        before: after the imports, before loading.
        loaded: after loading.
        ran: after the first run.
        peak: the highest it ever was.
    """

    before: int
    loaded: int
    ran: int
    peak: int

    @property
    def growth(self) -> int:
        """Bytes that loading and one run added: what the model costs beyond the engine's libraries."""
        return self.ran - self.before


def measure_resident(load: str, run: str = "", *, setup: str = "", seconds: float = 300.0) -> Resident:
    """Measure resident memory around loading and running something, in a fresh Python.

    Args:
        load: Python code, or "module:function", whose result is then called `loaded`.
        run: Python code, or "module:function", called with `loaded`.
        setup: code run before the first reading: the imports.
        seconds: after so long the process is stopped.

    Raises:
        EngineError: this is not Linux (/proc is missing), or the code failed; says its last line.

    Example:
        >>> grown = measure_resident("loaded = bytearray(50_000_000)").growth
        >>> 49e6 < grown < 60e6
        True
    """
    if not Path("/proc/self/status").exists():
        raise EngineError("Resident memory is read from /proc, which this system lacks; measure it on Linux.")
    imports = "\n".join(f"import {match[1]}" for code in (load, run) if (match := _reference(code)))
    parts = [f"{setup}\n{imports}", _as_code(load, "loaded = {}()"), _as_code(run, "{}(loaded)")]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            input=json.dumps(parts),
            capture_output=True,
            text=True,
            timeout=seconds,
            process_group=0,  # a Ctrl-C in the terminal is for this process to act on, not for the probe to die of
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"The memory probe ran longer than {seconds:g} s; raise seconds.") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise EngineError(f"The memory probe failed: {lines[-1]}")
    return Resident(*json.loads(done.stdout))


def _reference(code: str) -> re.Match[str] | None:
    return re.fullmatch(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)", code)


def _as_code(code: str, pattern: str) -> str:
    match = _reference(code)
    return pattern.format(f"{match[1]}.{match[2]}") if match else code
