"""Ways to spoil a bundle: each takes the files of a sound one and a seeded generator and returns spoilt files."""

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, defs, helper

from flyweight.bundle.strict_json import canonical, checksum

Files = dict[str, bytes]
OPS = sorted({schema.name for schema in defs.get_all_schemas() if schema.domain == ""})
NUMBERS = [0, 1, -1, 2, 3, 7, 16, 255, 2**15, 2**24, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), -2, -5]
DENSE = "[" * 100_000 + "]" * 100_000
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    10**400,
    2**63,
    1e308,
    "",
    "x" * 10_000,
    "\x1b[31m",
    [],
    {},
    [[]],
    {"a": {}},
]


def repaired(files: Files) -> Files:
    """Make every hash fit again, so that the checks behind the hashes are reached."""
    files = dict(files)
    try:
        manifest = json.loads(files["manifest.json"])
        for name, entry in manifest["files"].items():
            if name in files:
                entry.update(described(files[name]))
        files["manifest.json"] = canonical(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass  # a spoilt manifest keeps its bytes; the timing file still vouches for them
    try:
        timing = json.loads(files["timing.json"])
        for name, entry in timing["files"].items():
            if name in files:
                entry.update(described(files[name]))
        timing.pop("checksum", None)
        files["timing.json"] = canonical({**timing, "checksum": checksum(timing)})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    return files


def described(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def flip(files: Files, rng: random.Random) -> Files:
    name = rng.choice(sorted(files))
    data = bytearray(files[name])
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return {**files, name: bytes(data)}


def cut(files: Files, rng: random.Random) -> Files:
    name = rng.choice(sorted(files))
    return {**files, name: files[name][: rng.randrange(len(files[name]))]}


def grow(files: Files, rng: random.Random) -> Files:
    name = rng.choice(sorted(files))
    return {**files, name: files[name] + rng.randbytes(rng.choice([1, 8, 5000]))}


def remove(files: Files, rng: random.Random) -> Files:
    name = rng.choice(sorted(files))
    return {key: data for key, data in files.items() if key != name}


def swap(files: Files, rng: random.Random) -> Files:
    one, other = rng.sample(sorted(files), 2)
    return {**files, one: files[other], other: files[one]}


def double(files: Files, rng: random.Random) -> Files:
    name = rng.choice(sorted(files))
    return {**files, rng.choice([name + ".bak", "Model.onnx", ".hidden", "a" * 200]): files[name]}


def spoil_json(files: Files, rng: random.Random) -> Files:
    """Change the structure of one of the JSON files, then make the hashes fit."""
    name = rng.choice(["manifest.json", "manifest.json", "timing.json", "samples.json"])
    value = json.loads(files[name])
    for _ in range(rng.choice([1, 1, 1, 3])):
        _spoil(value, rng)
    try:
        data = canonical(value)
    except (ValueError, RecursionError):
        data = json.dumps(value).encode()
    if rng.random() < 0.1:
        data = data.replace(b"0", rng.choice([b"NaN", b"1e999", b"-Infinity", DENSE.encode(), b'"\\ud800"', b"01"]), 1)
    return repaired({**files, name: data})


def _spoil(value: Any, rng: random.Random) -> None:
    """Change one place of a JSON value: replace, remove, add or double."""
    places: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        inner = stack.pop()
        pairs = inner.items() if isinstance(inner, dict) else enumerate(inner)
        for key, item in pairs:
            places.append((inner, key))
            if isinstance(item, (dict, list)):
                stack.append(item)
    if not places:
        return
    inner, key = rng.choice(places)
    how = rng.randrange(4)
    if how == 0:
        del inner[key]
    elif how == 1 and isinstance(inner, dict):
        inner[rng.choice(["__class__", "inputz", "x" * 600, str(key) + "s"])] = rng.choice(VALUES)
    elif how == 2 and isinstance(inner[key], (int, float)):
        inner[key] = rng.choice([*NUMBERS, 0.5, -0.0, 1e-320])
    else:
        inner[key] = rng.choice(VALUES)


def spoil_bytes(files: Files, rng: random.Random) -> Files:
    """Change bytes of the model, then make the hashes fit."""
    data = bytearray(files["model.onnx"])
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(data))
        how = rng.randrange(4)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at] = rng.choice([0, 1, 127, 128, 255])
        elif how == 2:
            del data[at : at + rng.choice([1, 2, 16])]
        else:
            data[at:at] = data[at : at + rng.choice([1, 8, 64])]
        if not data:
            break
    return repaired({**files, "model.onnx": bytes(data)})


def spoil_graph(files: Files, rng: random.Random) -> Files:
    """Change the graph in ways that parse, then make the hashes fit."""
    model = ModelProto.FromString(files["model.onnx"])
    for _ in range(rng.choice([1, 1, 2, 3])):
        rng.choice(GRAPH_MUTATIONS)(model, rng)
    return repaired({**files, "model.onnx": model.SerializeToString()})


def _number(rng: random.Random) -> int:
    return rng.choice(NUMBERS) if rng.random() < 0.6 else rng.randrange(-4, 20)


def _dims(model: ModelProto, rng: random.Random) -> None:
    tensor = _constant(model, rng)
    if tensor is None:
        return
    if tensor.dims and rng.random() < 0.8:
        tensor.dims[rng.randrange(len(tensor.dims))] = _number(rng)
    else:
        tensor.dims.append(_number(rng))


def _kind(model: ModelProto, rng: random.Random) -> None:
    tensor = _constant(model, rng)
    if tensor is not None:
        tensor.data_type = rng.randrange(0, 26)


def _value(model: ModelProto, rng: random.Random) -> None:
    """Give a constant other content of the right length: huge sizes, negative axes, zero divisors."""
    tensor = _constant(model, rng)
    if tensor is None or not tensor.raw_data:
        return
    if tensor.data_type == TensorProto.INT64:
        tensor.raw_data = b"".join(
            _number(rng).to_bytes(8, "little", signed=True) for _ in range(len(tensor.raw_data) // 8)
        )
    else:
        tensor.raw_data = rng.randbytes(len(tensor.raw_data))


def _length(model: ModelProto, rng: random.Random) -> None:
    tensor = _constant(model, rng)
    if tensor is not None:
        tensor.raw_data = rng.randbytes(rng.choice([0, 1, 4, 8, 64]))


def _typed(model: ModelProto, rng: random.Random) -> None:
    tensor = _constant(model, rng)
    if tensor is not None:
        tensor.ClearField("raw_data")
        getattr(tensor, rng.choice(["float_data", "int32_data", "int64_data"])).extend(
            [rng.randrange(9)] * rng.randrange(40)
        )


def _outside(model: ModelProto, rng: random.Random) -> None:
    """Point a constant to another place: up the tree, an absolute path, past the end."""
    tensor = _constant(model, rng)
    if tensor is None:
        return
    tensor.data_location = TensorProto.EXTERNAL
    places = [
        "../model.onnx.data",
        "/etc/passwd",
        "model.onnx",
        "./model.onnx.data",
        "a/../model.onnx.data",
        "\x00",
        "model.onnx.data",
    ]
    if rng.random() < 0.5:
        tensor.ClearField("external_data")
    entry = tensor.external_data.add()
    entry.key, entry.value = rng.choice(
        [("location", rng.choice(places)), ("offset", str(_number(rng))), ("length", str(_number(rng)))]
    )


def _operator(model: ModelProto, rng: random.Random) -> None:
    _node(model, rng).op_type = rng.choice(OPS)


def _domain(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    node.domain = rng.choice(["ai.onnx", "com.microsoft", "ai.onnx.ml", "own.domain"])
    model.opset_import.add(domain=node.domain, version=1)


def _attribute(model: ModelProto, rng: random.Random) -> None:
    """Change an attribute's number, or give a node one more that its operator knows."""
    node = _node(model, rng)
    if node.attribute and rng.random() < 0.7:
        one = rng.choice(list(node.attribute))
        if one.type == AttributeProto.INTS and one.ints:
            one.ints[rng.randrange(len(one.ints))] = _number(rng)
        elif one.type == AttributeProto.INTS or rng.random() < 0.1:
            one.ints.append(_number(rng))
        else:
            one.i = _number(rng)
        return
    try:
        known = defs.get_schema(node.op_type, 20, "").attributes
    except defs.SchemaError:
        return
    if not known:
        return
    name = rng.choice(sorted(known))
    kind = known[name].type.name
    values: dict[str, Any] = {
        "INT": _number(rng),
        "INTS": [_number(rng) for _ in range(rng.randrange(1, 5))],
        "FLOAT": float(_number(rng)),
        "FLOATS": [float(_number(rng))],
        "STRING": rng.choice(
            ["", "SAME_UPPER", "VALID", "cubic", "bidirectional", "reverse", "NOTSET", "tf_crop_and_resize"]
        ),
        "STRINGS": ["Tanh", "Relu", "Affine"][: rng.randrange(1, 4)],
    }
    if kind in values:
        node.attribute.append(helper.make_attribute(name, values[kind]))


def _lose_attribute(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def _rewire(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    names = [name for one in model.graph.node for name in one.output] + [one.name for one in model.graph.initializer]
    names += [one.name for one in model.graph.input] + ["", "nowhere"]
    how = rng.randrange(3)
    if node.input and how == 0:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif node.input and how == 1:
        del node.input[rng.randrange(len(node.input))]
    else:
        node.input.append(rng.choice(names))


def _drop(model: ModelProto, rng: random.Random) -> None:
    del model.graph.node[rng.randrange(len(model.graph.node))]
    if not model.graph.node:
        model.graph.node.append(helper.make_node("Identity", ["x"], ["y"]))


def _again(model: ModelProto, rng: random.Random) -> None:
    model.graph.node.append(_node(model, rng))


def _amplify(model: ModelProto, rng: random.Random) -> None:
    """Put a node in between that makes a value many times larger."""
    at = rng.randrange(len(model.graph.node))
    old = model.graph.node[at].output[:1]
    if not old:
        return
    name = f"made_{rng.random()}"
    size = rng.choice([2, 1000, 2**20, 2**30, 2**33, 2**40, 2**62])
    model.graph.initializer.append(helper.make_tensor(f"s_{name}", TensorProto.INT64, [1], [size]))
    how = rng.randrange(3)
    if how == 0:
        nodes = [helper.make_node("Expand", [old[0], f"s_{name}"], [name])]
    elif how == 1:
        nodes = [helper.make_node("ConstantOfShape", [f"s_{name}"], [name])]
    else:
        steps = [f"{name}_{step}" for step in range(rng.choice([2, 40, 70]))]
        nodes = [
            helper.make_node("Concat", [a, a], [b], axis=-1)
            for a, b in zip([old[0], *steps], [*steps, name], strict=True)
        ]
    for one in list(model.graph.node)[at + 1 :]:
        for place, read in enumerate(one.input):
            if read == old[0] and rng.random() < 0.7:
                one.input[place] = name
    tail = [NodeProto.FromString(one.SerializeToString()) for one in model.graph.node[at + 1 :]]
    del model.graph.node[at + 1 :]
    model.graph.node.extend([*nodes, *tail])


def _ends(model: ModelProto, rng: random.Random) -> None:
    """Change what the graph says of its inputs, outputs or values between."""
    ends = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    value = rng.choice(ends)
    dims = value.type.tensor_type.shape.dim
    how = rng.randrange(4)
    if how == 0 and dims:
        rng.choice(list(dims)).dim_value = _number(rng)
    elif how == 1:
        dims.add().dim_value = _number(rng)
    elif how == 2:
        value.type.tensor_type.elem_type = rng.randrange(0, 26)
    else:
        value.name = rng.choice(["x", "y", "", "price", "made"])


def _versions(model: ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.5:
        model.ir_version = _number(rng)
    elif model.opset_import:
        model.opset_import[0].version = rng.choice([_number(rng), rng.randrange(13, 30)])


def _extras(model: ModelProto, rng: random.Random) -> None:
    """Add what no bundle may hold: a function, a sparse constant, a graph in an attribute, a training part."""
    how = rng.randrange(4)
    if how == 0:
        model.functions.add(name="f", domain="own")
    elif how == 1:
        model.graph.sparse_initializer.add()
    elif how == 2:
        _node(model, rng).attribute.append(helper.make_attribute("body", model.graph))
    else:
        model.training_info.add()


def _constant(model: ModelProto, rng: random.Random) -> TensorProto | None:
    return rng.choice(list(model.graph.initializer)) if model.graph.initializer else None


def _node(model: ModelProto, rng: random.Random) -> NodeProto:
    return rng.choice(list(model.graph.node))


GRAPH_MUTATIONS: tuple[Callable[[ModelProto, random.Random], None], ...] = (
    _dims,
    _kind,
    _value,
    _value,
    _length,
    _typed,
    _outside,
    _operator,
    _operator,
    _domain,
    _attribute,
    _attribute,
    _attribute,
    _lose_attribute,
    _rewire,
    _rewire,
    _drop,
    _again,
    _amplify,
    _ends,
    _versions,
    _extras,
)

#: Mutations that leave the hashes as they were: each must be found. And those that repair them.
RAW: tuple[Callable[[Files, random.Random], Files], ...] = (flip, flip, cut, grow, remove, swap, double)
DEEP: tuple[Callable[[Files, random.Random], Files], ...] = (
    spoil_json,
    spoil_json,
    spoil_bytes,
    spoil_graph,
    spoil_graph,
)


def link(folder: Path, rng: random.Random) -> None:
    """Replace a file by what is no plain file: a link to its copy, a folder, a pipe."""
    name = rng.choice(sorted(entry.name for entry in folder.iterdir()))
    how = rng.randrange(4)
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    if how == 0:
        (folder.parent / "aside").write_bytes(data)
        (folder / name).symlink_to(folder.parent / "aside")
    elif how == 1:
        (folder / name).mkdir()
    elif how == 2:
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/nowhere")


__all__ = ["DEEP", "GRAPH_MUTATIONS", "RAW", "DecodeError", "Files", "link", "repaired"]
