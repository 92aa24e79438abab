"""The ONNX standard's own tests of each operator (inputs and outputs by its reference), run on imported modules."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from flyweight.errors import InputError
from flyweight.graph.from_onnx import from_onnx
from flyweight.graph.onnx_import.table import OPERATORS

#: Ties are ordered otherwise by torch.topk; their values are the same.
LEFT_OUT = ("test_top_k_same_values",)
KINDS = {np.dtype(name) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")}


def cases() -> Iterator[Any]:
    """Yield the tests of operators that we know, over types that PyTorch has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reference divides by zero on purpose
        found = load_model_tests(kind="node")
    for case in found:
        known = {node.op_type for node in case.model.graph.node} <= set(OPERATORS) and not case.model.functions
        if not known or case.name.startswith(LEFT_OUT) or not case.data_sets:
            continue
        values = [value for part in case.data_sets[0] for value in part]
        if all(isinstance(value, np.ndarray | np.generic) and value.dtype in KINDS for value in values):
            yield case


def check(case: Any, path: Path, *, baked: bool) -> None:
    """Run a test; `baked` makes constants of all inputs but the first, as weights and sizes are in real files."""
    given, wanted = case.data_sets[0]
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    inputs = list(model.graph.input)
    fixed = inputs[1:] if baked else []
    values = {one.name: value for one, value in zip(inputs, given, strict=True)}
    model.graph.initializer.extend(numpy_helper.from_array(values.pop(one.name), one.name) for one in fixed)
    del model.graph.input[len(inputs) - len(fixed) :]
    onnx.save(model, path)
    tensors = [torch.from_numpy(np.array(value)) for value in values.values()]
    for place, (output, value) in enumerate(zip(model.graph.output, wanted, strict=True)):
        try:
            with torch.no_grad():
                seen = from_onnx(path, output=output.name)(*tensors)
        except InputError as refusal:
            if place and "which is not made here" in str(refusal):  # statistics beside the result
                continue
            raise
        loose = value.dtype == np.float16
        assert seen.shape == value.shape, case.name
        np.testing.assert_allclose(
            seen.numpy().astype(np.float64), value.astype(np.float64), rtol=1e-2 if loose else 1e-3,
            atol=1e-2 if loose else 1e-5, err_msg=case.name,
        )  # fmt: skip
