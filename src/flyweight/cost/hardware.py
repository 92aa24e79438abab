"""What the measurements were made on: processor, memory and package versions. No names of machines, no paths."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: Packages whose version changes a size, a time or a score.
PACKAGES = ("flyweight", "numpy", "onnx", "onnxruntime", "openvino", "onnxscript", "scipy", "torch")
#: Instruction sets that make a compressed model fast, as Linux calls them.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "i8mm")


def describe_hardware() -> dict[str, Any]:
    """Return cpu, cores, cores allowed, memory in bytes, instruction sets, system, Python and package versions.

    Example: `{"cpu": "Intel Xeon ...", "cores": 2, "cores_allowed": 2, "memory_bytes": 25_000_000_000,
    "instructions": ["avx2"], "system": "Linux x86_64", "python": "3.11.2", "packages": {"numpy": "2.4.6"}}`
    """
    facts = _first_processor()
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "cores_allowed": allowed_cores(),
        "memory_bytes": _memory_bytes(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": package_versions(),
    }


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the version of each package that is installed, by name."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _first_processor() -> dict[str, str]:
    """The first block of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    block = path.read_text(errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def allowed_cores() -> int:
    """Cores this process may use, which is fewer than the machine has inside a container or under taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> int:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return 0
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
