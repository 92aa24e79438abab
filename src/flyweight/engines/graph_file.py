"""A graph on disk: large numbers in a file of their own, nothing of the machine that wrote it, always the same."""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from flyweight.errors import ExportError

#: Tensors over so many bytes lie in the data file; each begins at a multiple of ALIGNMENT, so that engines can map it.
INLINE_BYTES = 1024
ALIGNMENT = 64
PRODUCER = "flyweight"


def write_graph(model: ir.Model, path: Path) -> int:
    """Write `path` and, where a tensor is over 1 KB, `path` + ".data"; return the bytes of both.

    Tensors are written one by one from where they lie in memory; the model refers to the files afterwards.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)
    _strip(model)
    written = _write_tensors(model, data)
    ir.save(model, path)
    return written + path.stat().st_size


def name_dimensions(model: ir.Model, labels: Mapping[str, str]) -> None:
    """Rename the first dimension of each input, wherever it appears, also inside "s7 + 1"."""
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        size = value.shape[0] if value.shape is not None and len(value.shape) else None
        if isinstance(size, ir.SymbolicDim) and size.value is not None and re.fullmatch(r"\w+", size.value):
            names.setdefault(size.value, labels[str(value.name)])
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(size, names) for size in value.shape])


def _renamed(size: int | ir.SymbolicDim, names: Mapping[str, str]) -> int | str | None:
    if isinstance(size, int):
        return size
    return None if size.value is None else re.sub(r"\w+", lambda word: names.get(word[0], word[0]), size.value)


def _write_tensors(model: ir.Model, data: Path) -> int:
    large = [
        value
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes > INLINE_BYTES
    ]
    if not large:
        return 0
    _check_room(data.parent, sum(value.const_value.nbytes for value in large if value.const_value is not None))
    with data.open("wb") as file:
        for value in large:
            tensor = value.const_value
            assert tensor is not None
            offset = -(-file.tell() // ALIGNMENT) * ALIGNMENT
            file.write(b"\0" * (offset - file.tell()))
            if tensor.dtype.itemsize < 1:
                file.write(tensor.tobytes())  # two numbers a byte
            else:
                np.ascontiguousarray(tensor.numpy()).tofile(file)  # no copy of what is contiguous
            value.const_value = ir.ExternalTensor(
                data.name,
                offset,
                tensor.nbytes,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=str(value.name),
                base_dir=data.parent,
            )
        return file.tell()


def _check_room(folder: Path, due: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < due:
        raise ExportError(
            f"The model's weights take {due:,} bytes as a file, and {folder} has {free:,} free. Make room there, or "
            "set TMPDIR to a folder on a larger disk."
        )


def _strip(model: ir.Model) -> None:
    """Drop what the exporter noted for its developers: stack traces, source paths, names of classes, versions."""
    model.producer_name, model.producer_version = PRODUCER, None
    model.domain, model.model_version, model.doc_string = None, None, None
    model.metadata_props.clear()
    model.graph.doc_string, model.graph.name = None, "model"
    model.graph.metadata_props.clear()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.doc_string = None
        node.metadata_props.clear()
    for value in _values(model):
        value.doc_string = None
        value.metadata_props.clear()
        if value.const_value is not None:
            value.const_value.doc_string = None
            value.const_value.metadata_props.clear()


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        yield from node.outputs
