"""Every ONNX operator that can be run in PyTorch, and what runs it."""

from collections.abc import Mapping

from flyweight.graph.onnx_import.elementwise import ELEMENTWISE, Handler
from flyweight.graph.onnx_import.quantized import QUANTIZED
from flyweight.graph.onnx_import.reductions import REDUCTIONS
from flyweight.graph.onnx_import.shapes import SHAPES
from flyweight.graph.onnx_import.weighted import WEIGHTED

OPERATORS: Mapping[str, Handler] = {**ELEMENTWISE, **SHAPES, **WEIGHTED, **REDUCTIONS, **QUANTIZED}
