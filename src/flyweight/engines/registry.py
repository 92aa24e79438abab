"""The engines we know, the default first."""

from collections.abc import Mapping
from types import MappingProxyType

from flyweight.engines.engine import Engine
from flyweight.engines.onnx_runtime import OnnxRuntime
from flyweight.engines.openvino import OpenVino
from flyweight.errors import InputError

_ORDER: tuple[Engine, ...] = (OnnxRuntime(), OpenVino())

#: Name -> engine, in the order in which they are tried.
ENGINES: Mapping[str, Engine] = MappingProxyType({engine.name: engine for engine in _ORDER})

#: Engines that round more than the file asks for: never tried unless named.
ROUNDING: Mapping[str, Engine] = MappingProxyType({engine.name: engine for engine in (OpenVino("bf16"),)})


def find_engine(name: str) -> Engine:
    """Return the engine of that name, installed or not.

    Raises:
        InputError: the name is unknown.

    Example:
        >>> find_engine("onnxruntime").available() is None
        True
    """
    known = {**ENGINES, **ROUNDING}
    if name not in known:
        raise InputError(f"Engine {name!r} is unknown; use one of {', '.join(known)}.")
    return known[name]
