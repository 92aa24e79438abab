"""The numbers of a table that leaves a graph: mapped from the bundle's file, or worked out of its constants once."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

from flyweight.bundle.manifest import DATA
from flyweight.bundle.shards.reader import Reader
from flyweight.engines.complaint import complaint


def constant_rows(model: ModelProto, reader: Reader, name: str, folder: Path) -> NDArray[Any]:
    """Return the numbers of a constant; what is stored as it is read is mapped, not read.

    Args:
        name: of the value.
        folder: of the bundle.

    Raises:
        EngineError: ONNX Runtime could not work it out.
    """
    tensor = reader.stored.get(name)
    if tensor is None:
        return _worked_out(model, reader, name, folder)
    if tensor.data_location != TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    offset = next((int(one.value) for one in tensor.external_data if one.key == "offset"), 0)
    return np.memmap(folder / DATA, np.dtype(reader.dtype(name)), "r", offset, tuple(tensor.dims))


def _worked_out(model: ModelProto, reader: Reader, value: str, folder: Path) -> NDArray[Any]:
    import onnxruntime

    names = reader.needs([value])
    graph = GraphProto(name="table")
    graph.node.extend(node for node in reader.graph.node if names & set(node.output))
    for name in sorted(names & reader.stored.keys()):
        tensor = TensorProto()
        tensor.CopyFrom(reader.stored[name])
        if tensor.data_location == TensorProto.EXTERNAL:
            load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
        graph.initializer.append(tensor)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(reader.dtype(value)))
    graph.output.append(helper.make_tensor_value_info(value, kind, reader.value(value).shape))
    part = ModelProto()
    part.CopyFrom(model)
    part.graph.CopyFrom(graph)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return np.asarray(session.run([value], {})[0])
    except Exception as error:  # its exceptions have no parent of their own; only its calls stand in this block
        raise complaint("onnxruntime", f"could not work out the constant {value!r}", error) from error
