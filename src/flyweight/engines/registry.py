"""The engines we know, the default first."""

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from flyweight.engines.agreement import TOLERANCE
from flyweight.engines.cuda import TorchCuda
from flyweight.engines.engine import Engine
from flyweight.engines.inductor import Inductor
from flyweight.engines.onnx_runtime import OnnxRuntime
from flyweight.engines.openvino import OpenVino
from flyweight.engines.torch_eager import TorchEager
from flyweight.errors import InputError


def _by_name(*engines: Engine) -> Mapping[str, Engine]:
    return MappingProxyType({engine.name: engine for engine in engines})


#: Name -> engine, in the order in which they are tried: those that serve without PyTorch.
ENGINES: Mapping[str, Engine] = _by_name(OnnxRuntime(), OpenVino())

#: Engines that need PyTorch: `flyweight bench` tries them, a choice only where named.
TORCH: Mapping[str, Engine] = _by_name(TorchEager(), Inductor())

#: Engines that need a CUDA device.
CUDA: Mapping[str, Engine] = _by_name(OnnxRuntime("cuda"), TorchCuda(), TorchCuda(compiled=True))

#: Engines that round more than the file asks for: never tried unless named, or rounding is allowed.
ROUNDING: Mapping[str, Engine] = _by_name(
    OpenVino("bf16"),
    TorchEager("bf16"),
    Inductor("bf16"),
    TorchCuda(precision="bf16"),
    TorchCuda(compiled=True, precision="bf16"),
)

#: Every engine by name.
KNOWN: Mapping[str, Engine] = MappingProxyType({**ENGINES, **TORCH, **CUDA, **ROUNDING})

#: What loading falls back to, in this order, where the engine that a bundle was timed in cannot be had.
FALLBACKS = (*ENGINES, "torch")

#: How far scores computed in bfloat16 may lie from the reference's, relative as in `agreement`. It keeps 8 significant
#: bits, so each factor is off by up to 2^-9; worst of 500 scores of a perceptron of three layers: 0.012. Eight units
#: tell such rounding from an engine that is wrong.
ROUNDING_TOLERANCE = 8 * 2.0**-8


def tolerance_in(name: str, *, rounding: bool = True) -> float:
    """Return how far an engine's scores may lie from the reference's.

    Args:
        rounding: whether bfloat16 is allowed; else an engine that computes in it is held to float32's tolerance.

    Example:
        >>> tolerance_in("onnxruntime"), tolerance_in("openvino-bf16"), tolerance_in("openvino-bf16", rounding=False)
        (0.0001, 0.03125, 0.0001)
    """
    return ROUNDING_TOLERANCE if rounding and name in ROUNDING else TOLERANCE


def find_engine(name: str) -> Engine:
    """Return the engine of that name, installed or not.

    Raises:
        InputError: the name is unknown.

    Example:
        >>> find_engine("onnxruntime").available() is None
        True
    """
    if not isinstance(name, str) or name not in KNOWN:
        near = get_close_matches(name, KNOWN, 1) if isinstance(name, str) else []
        hint = f" The nearest is {near[0]!r}." if near else ""
        raise InputError(f"Engine {name!r} is unknown; use one of {', '.join(KNOWN)}.{hint}")
    return KNOWN[name]
