"""What an engine makes of a model: the operators that it really runs, and in which precision each works."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from flyweight.engines.complaint import complaint
from flyweight.engines.onnx_runtime import NAME as ONNX_RUNTIME
from flyweight.engines.onnx_runtime import session_options
from flyweight.engines.openvino import OpenVino, note_of
from flyweight.engines.registry import find_engine
from flyweight.errors import EngineError

INTEGERS = frozenset({"int8", "uint8", "int4", "uint4"})
_MULTIPLYING = """
    Conv ConvInteger ConvTranspose Convolution Deconvolution DynamicQuantizeMatMul FullyConnected FusedConv FusedGemm
    FusedMatMul Gemm MatMul MatMulInteger MatMulIntegerToFloat MatMulNBits NhwcConv NhwcFusedConv QGemm QLinearConv
    QLinearMatMul
"""
#: Operators of both engines that multiply matrices: what a quantised model wants to run in integers.
MULTIPLYING = frozenset(_MULTIPLYING.split())
_PREFIXES = {"i": "int", "u": "uint", "f": "float", "bf": "bfloat"}


@dataclass(frozen=True)
class Executed:
    """Nodes of one kind that an engine runs.

    Args:
        operator: by the engine's own name, "QLinearConv" or "Convolution".
        precision: of what it works on, its first input: "float32", "uint8", "bfloat16", ...
        count: how many there are.
    """

    operator: str
    precision: str
    count: int

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies matrices."""
        return self.operator in MULTIPLYING


def executed_operators(path: Path, engine: str, threads: int = 1) -> tuple[Executed, ...]:
    """Return what an engine runs for a model, the commonest first, after all its own rewriting.

    ONNX Runtime's is the graph that it optimised, OpenVINO's its runtime model. Constants, inputs and outputs are left
    out.

    Raises:
        EngineError: the engine is missing, or refuses the model.
        InputError: the engine is unknown.

    Example:
        >>> executed_operators(Path("model.onnx"), "onnxruntime")[0]  # doctest: +SKIP
        Executed(operator='QLinearConv', precision='uint8', count=9)
    """
    chosen = find_engine(engine)
    missing = chosen.available()
    if missing is not None:
        raise EngineError(missing)
    seen = _in_openvino(chosen, path, threads) if isinstance(chosen, OpenVino) else _in_onnx_runtime(path, threads)
    rows = [Executed(operator, precision, count) for (operator, precision), count in seen.items()]
    return tuple(sorted(rows, key=lambda row: (-row.count, row.operator, row.precision)))


def integer_share(executed: Sequence[Executed]) -> tuple[int, int]:
    """Return how many of the operators that multiply matrices do so in integers, and how many there are.

    Example:
        >>> integer_share([Executed("QLinearConv", "uint8", 9), Executed("Gemm", "float32", 1)])
        (9, 10)
    """
    layers = [row for row in executed if row.multiplies]
    return sum(row.count for row in layers if row.precision in INTEGERS), sum(row.count for row in layers)


def _in_onnx_runtime(path: Path, threads: int) -> Counter[tuple[str, str]]:
    import onnxruntime

    options = session_options(path, threads)
    with tempfile.TemporaryDirectory(prefix="flyweight-executed-") as folder:
        # Beside the model, its numbers are referred to; elsewhere they are written again, into a file of their own.
        options.optimized_model_filepath = str(Path(folder, "optimised.onnx"))
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "numbers")
        try:
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no parent of their own
            raise complaint(ONNX_RUNTIME, f"refused {path.name}", error) from error
        graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    kinds = {tensor.name: _name(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.elem_type:
            kinds[value.name] = _name(value.type.tensor_type.elem_type)
    seen: Counter[tuple[str, str]] = Counter()
    for node in graph.node:
        precision = _precision(node, kinds)
        seen[node.op_type, precision] += 1
        for name in node.output:  # its own layouts of images come without types
            kinds.setdefault(name, precision)
    return seen


def _name(kind: int) -> str:
    name: str = TensorProto.DataType.Name(kind).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _precision(node: onnx.NodeProto, kinds: dict[str, str]) -> str:
    if node.op_type == "DynamicQuantizeMatMul":  # rounds its float32 input itself
        return "uint8"
    if node.op_type == "MatMulNBits" and any(one.name == "accuracy_level" and one.i == 4 for one in node.attribute):
        return "int8"
    read = [kinds[name] for name in node.input if name in kinds]
    if node.op_type.startswith("Q") and node.op_type != "QuantizeLinear":
        # These read integers alone, beside float scales; the type of what they read may have been left out.
        read = [kind for kind in read if kind in INTEGERS] or ["uint8"]
    return next(iter(read or [kinds.get(node.output[0], "unknown")]))


def _in_openvino(engine: OpenVino, path: Path, threads: int) -> Counter[tuple[str, str]]:
    seen: Counter[tuple[str, str]] = Counter()
    for node in engine.compile(path, threads).get_runtime_model().get_ordered_ops():
        operator = note_of(node, "layerType")
        if operator not in ("Const", "Input", "Output"):
            port = node.input(0) if node.get_input_size() else node.output(0)
            kind = port.get_element_type().get_type_name()
            letters = kind.rstrip("0123456789")
            seen[operator, _PREFIXES.get(letters, letters) + kind[len(letters) :]] += 1
    return seen
