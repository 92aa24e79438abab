"""Whether PyTorch, FBGEMM and TorchRec go together: told from what is installed, before an import that fails in C++."""

import logging
import re
from importlib.metadata import PackageNotFoundError, version

from flyweight.errors import EngineError
from flyweight.graph.quiet import quietly

#: FBGEMM's release for each of PyTorch's (docs.pytorch.org/FBGEMM/general/Releases.html). It is built against that one
#: alone: another lacks C++ symbols. TorchRec has the number of the FBGEMM that it calls.
PAIRS = {"2.7": "1.2", "2.8": "1.3", "2.9": "1.4", "2.10": "1.5", "2.11": "1.6", "2.12": "1.7", "2.13": "1.8"}
#: Two packages that put the same module in the same place: for processors alone, and with CUDA.
FBGEMM = ("fbgemm-gpu-cpu", "fbgemm-gpu")


def load_torchrec() -> None:
    """Import TorchRec, once it is known that it can be.

    Raises:
        EngineError: a package is missing, or they do not go together; names what is installed, the pair that works and
            how to install it.
    """
    check_versions()
    try:
        with quietly():
            import fbgemm_gpu  # noqa: F401
            import torchrec  # noqa: F401
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # what a library that does not fit raises
        said = str(error.__cause__ or error).strip().splitlines()[0]
        raise EngineError(f"TorchRec cannot be imported ({said}). {_advice(_seen())}") from error
    for loud in ("torchrec", "torch.fx._symbolic_trace"):  # they speak to developers of TorchRec
        logging.getLogger(loud).setLevel(logging.ERROR)


def check_versions() -> None:
    """Check by what is installed that PyTorch, FBGEMM and TorchRec go together, without importing them.

    Releases that no table names yet are let through: the import says what it thinks of them.

    Raises:
        EngineError: names what is installed, the pair that works and how to install it.
    """
    seen = _seen()
    fbgemm = [name for name in FBGEMM if name in seen]
    missing = [name for name in ("torchrec",) if name not in seen] + ([] if fbgemm else [FBGEMM[0]])
    if missing:
        raise EngineError(f"Tables over processes need {' and '.join(missing)}, not installed. {_advice(seen)}")
    if len(fbgemm) == 2:
        raise EngineError(
            f"{FBGEMM[0]} {seen[FBGEMM[0]]} and {FBGEMM[1]} {seen[FBGEMM[1]]} are both installed, one over the other; "
            f"uninstall both first. {_advice(seen)}"
        )
    wanted = PAIRS.get(_minor(seen["torch"]))
    wrong = [name for name in (*fbgemm, "torchrec") if wanted is not None and _minor(seen[name]) != wanted]
    if wrong:
        found = " and ".join(f"{name} {seen[name]}" for name in (*fbgemm, "torchrec"))
        raise EngineError(f"{found} do not go with torch {seen['torch']}. {_advice(seen)}")


def _seen() -> dict[str, str]:
    found = {}
    for name in ("torch", "torchrec", *FBGEMM):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _minor(release: str) -> str:
    found = re.match(r"\d+\.\d+", release)
    return found[0] if found else release


def _advice(seen: dict[str, str]) -> str:
    """Return the pair that works, and the lines that install it."""
    own = seen.get("torch", "")
    fits = PAIRS.get(_minor(own))
    if fits is None:
        newest, fits = list(PAIRS.items())[-1]
        pair = f"No pair is known for torch {own or '(not installed)'}; torch {newest} goes with FBGEMM {fits}"
    else:
        pair = f"torch {_minor(own)} goes with fbgemm-gpu-cpu {fits}.0 and torchrec {fits}.0"
    return (
        f"{pair}: `pip install fbgemm-gpu-cpu=={fits}.0`, then `pip install --no-deps torchrec=={fits}.0` "
        "(with its dependencies it would bring an FBGEMM built for CUDA)."
    )
