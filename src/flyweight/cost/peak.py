"""Operations a second that a processor reaches, by precision: the best engine's large matrix product."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyweight.errors import InputError

Product = Callable[[], object]
#: Rows, columns and depth of the products: with 1 MB a float32 matrix, near the second cache, and with 4 MB.
SIZES = (512, 1024)


@dataclass(frozen=True)
class Peak:
    """The most that one precision reached.

    Args:
        precision: "float32", "bfloat16" or "int8": of the factors. Sums are wider (float32, int32).
        rate: operations a second; a multiply-accumulate is two.
        engine: whose product it was.
    """

    precision: str
    rate: float
    engine: str


def measure_peaks(
    threads: int = 1, sizes: tuple[int, ...] = SIZES, repeats: int = 6
) -> tuple[tuple[Peak, ...], dict[str, str]]:
    """Measure products of two square matrices in every engine at hand; return the best by precision.

    Also returned, by precision, is why one is unknown: no engine that multiplies in it is installed.

    Raises:
        InputError: `threads`, a size or `repeats` is below 1, or there is no size.

    Example: a core with two 256-bit multiply-add units at 3.2 GHz has a float32 peak of 2 x 8 x 2 x 3.2 = 102 G a
    second, and `measure_peaks()` finds 90 to 102 of it.
    """
    if not sizes or min(threads, *sizes, repeats) < 1:
        raise InputError(f"A peak needs whole numbers from 1; seen threads={threads}, {sizes=}, {repeats=}.")
    peaks, unknown = [], {}
    for precision, engines in _PRODUCTS.items():
        tried = {name: _rate(make, threads, sizes, repeats) for name, make in engines.items()}
        rates = {name: rate for name, rate in tried.items() if isinstance(rate, float)}
        if rates:
            best = max(rates, key=lambda name: rates[name])
            peaks.append(Peak(precision, rates[best], best))
        else:
            unknown[precision] = "; ".join(str(why) for why in tried.values())
    return tuple(peaks), unknown


def _rate(make: Callable[[int, int], Product], threads: int, sizes: tuple[int, ...], repeats: int) -> float | str:
    """Operations a second of the size that does best, or why there are none."""
    try:
        return max(2.0 * size**3 / _best(make(size, threads), repeats) for size in sizes)
    except ImportError as error:
        return f"{error.name} is not installed"
    except NotImplementedError as error:
        return str(error)


def _best(product: Product, repeats: int) -> float:
    """Seconds of the fastest call after the first, in which engines pack and allocate."""
    product()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - start)
    return best


def _onnx_runtime_float32(size: int, threads: int) -> Product:
    return _session("MatMul", np.ones((size, size), np.float32), np.ones((size, size), np.float32), threads)


def _onnx_runtime_int8(size: int, threads: int) -> Product:
    """Unsigned times signed: what VNNI multiplies, and what quantised activations and weights are."""
    return _session("MatMulInteger", np.ones((size, size), np.uint8), np.ones((size, size), np.int8), threads)


def _session(operator: str, left: Any, right: Any, threads: int) -> Product:
    """A product in ONNX Runtime; the right factor is a constant, so that it is packed once, as weights are."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    result = TensorProto.FLOAT if left.dtype == np.float32 else TensorProto.INT32
    graph = helper.make_graph(
        [helper.make_node(operator, ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", helper.np_dtype_to_tensor_dtype(left.dtype), left.shape)],
        [helper.make_tensor_value_info("product", result, (len(left), right.shape[1]))],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"left": left})


def _torch_product(kind: str) -> Callable[[int, int], Product]:
    def make(size: int, threads: int) -> Product:
        import torch

        multiply: Any = torch.matmul
        if kind == "int8":
            multiply = getattr(torch, "_int_mm", None)
            if multiply is None:
                raise NotImplementedError("this PyTorch has no product of int8 matrices (torch._int_mm)")
        left = torch.ones(size, size, dtype=getattr(torch, kind))
        right = left.clone()

        def product() -> None:
            with torch.no_grad(), _torch_threads(threads):
                multiply(left, right)

        return product

    return make


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _openvino_product(kind: str) -> Callable[[int, int], Product]:
    def make(size: int, threads: int) -> Product:
        import openvino
        from openvino import opset13

        left = np.ones((size, size), np.float32)
        given = opset13.parameter([size, size], openvino.Type.f32)
        model = openvino.Model([opset13.matmul(given, opset13.constant(left), False, False)], [given])
        settings = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[kind],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        return lambda: request.infer([left], share_inputs=True, share_outputs=True)

    return make


#: Precision -> engine -> a product ready to be called.
_PRODUCTS: Mapping[str, Mapping[str, Callable[[int, int], Product]]] = {
    "float32": {
        "onnxruntime": _onnx_runtime_float32,
        "torch": _torch_product("float32"),
        "openvino": _openvino_product("float32"),
    },
    "bfloat16": {"torch": _torch_product("bfloat16"), "openvino": _openvino_product("bfloat16")},
    "int8": {"onnxruntime": _onnx_runtime_int8, "torch": _torch_product("int8")},
}
