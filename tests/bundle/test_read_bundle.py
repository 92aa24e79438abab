"""Reading: what is damaged, newer or hostile is refused in words; hashes are repaired where they would tell first."""

import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import mutations
import onnx
import pytest
import tiny_models
from onnx import ModelProto, helper, numpy_helper

from flyweight.bundle.read import read_bundle
from flyweight.bundle.strict_json import canonical
from flyweight.bundle.write import write_bundle
from flyweight.errors import BundleError


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> mutations.Files:
    folder = tmp_path_factory.mktemp("sound")
    path = write_bundle(folder / "r.fly", tiny_models.contents(folder / "e"))
    return {file.name: file.read_bytes() for file in path.iterdir()}


def placed(tmp_path: Path, files: mutations.Files) -> Path:
    path = tmp_path / "r.fly"
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def with_manifest(files: mutations.Files, change: Callable[[Any], None]) -> mutations.Files:
    value = json.loads(files["manifest.json"])
    change(value)
    return mutations.repaired({**files, "manifest.json": canonical(value)})


def with_model(files: mutations.Files, change: Callable[[ModelProto], None]) -> mutations.Files:
    model = ModelProto.FromString(files["model.onnx"])
    change(model)
    return mutations.repaired({**files, "model.onnx": model.SerializeToString()})


def refused(tmp_path: Path, files: mutations.Files, words: str) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        read_bundle(placed(tmp_path, files))
    assert "\n" not in str(caught.value)


def test_nothing_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"There is no bundle at .*: no such folder"):
        read_bundle(tmp_path / "no.fly")


def test_interrupted_overwrite_says_where_the_old_one_is(tmp_path: Path) -> None:
    (tmp_path / ".r.fly.0123.old").mkdir()
    with pytest.raises(
        BundleError, match=r"an interrupted write left the old one at .*\.r\.fly\.0123\.old: rename it back"
    ):
        read_bundle(tmp_path / "r.fly")


def test_empty_folder_and_file_are_no_bundles(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"lacks manifest\.json: it is not a bundle"):
        read_bundle(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="is a file"):
        read_bundle(tmp_path / "file")


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "samples.json", "timing.json", "report.html"])
def test_missing_file_is_named(tmp_path: Path, sound: mutations.Files, name: str) -> None:
    refused(tmp_path, {key: data for key, data in sound.items() if key != name}, name.replace(".", r"\."))


@pytest.mark.parametrize(
    "name", ["manifest.json", "model.onnx", "model.onnx.data", "samples.json", "timing.json", "report.html"]
)
def test_every_flipped_bit_of_a_byte_is_found(tmp_path: Path, sound: mutations.Files, name: str) -> None:
    path = placed(tmp_path, sound)
    data = sound[name]
    for place in (0, len(data) // 2, len(data) - 1):
        for bit in range(8):
            spoilt = bytearray(data)
            spoilt[place] ^= 1 << bit
            (path / name).write_bytes(spoilt)
            with pytest.raises(BundleError):
                read_bundle(path)
    (path / name).write_bytes(data)
    read_bundle(path)


def test_cut_file_says_how_many_bytes_are_due(tmp_path: Path, sound: mutations.Files) -> None:
    data = sound["model.onnx.data"]
    words = rf"model\.onnx\.data has {len(data) - 5:,} bytes, {len(data):,} are due: it was cut or altered"
    refused(tmp_path, {**sound, "model.onnx.data": data[:-5]}, words)


def test_extra_file_is_named(tmp_path: Path, sound: mutations.Files) -> None:
    refused(tmp_path, {**sound, "notes.txt": b"hello"}, "holds 'notes.txt', which is not part of a bundle")


def test_newer_format_says_which_flyweight_to_get(tmp_path: Path, sound: mutations.Files) -> None:
    def newer(manifest: Any) -> None:
        manifest.update(format=7, flyweight="3.1.0", something_new={})

    words = r"of bundle format 7; flyweight .* reads up to 4. It was written by flyweight 3\.1\.0: pip install -U"
    refused(tmp_path, with_manifest(sound, newer), words)


def test_unknown_key_names_the_nearest_one(tmp_path: Path, sound: mutations.Files) -> None:
    def misspelt(manifest: Any) -> None:
        manifest["certificate"]["certifyed"] = True

    refused(
        tmp_path,
        with_manifest(sound, misspelt),
        "key 'certificate.certifyed' is unknown, the nearest known is 'certified'",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.pop("drop"), "key 'drop' is missing"),
        (lambda m: m["inputs"]["user_id"].update(rows="20"), r"'inputs\.user_id\.rows' is '20'"),
        (lambda m: m["inputs"]["user_id"].update(rows=10**400), "an integer of 1329 bits"),
        (lambda m: m["inputs"]["user_id"].update(rows=10), "ids outside 0 to 9"),
        (lambda m: m["inputs"]["user_id"].update(dtype="float32"), "ids are whole numbers"),
        (lambda m: m["inputs"]["price"].update(shape=[3]), r"input 'price' is float32 of shape \[None\]"),
        (lambda m: m["inputs"].pop("price"), "it reads 'price', not among the manifest's inputs"),
        (lambda m: m.update(name="\x1b[2J"), "'name' is"),
        (lambda m: m.update(id_maps={"user_id": [0, 1]}), "has 2 entries for 20 rows"),
        (lambda m: m.update(format=True), "names no bundle format"),
        (lambda m: m["files"].update({"../x": m["files"]["model.onnx"]}), r"files\.\.\./x"),
    ],
)
def test_altered_manifest_is_refused(
    tmp_path: Path, sound: mutations.Files, change: Callable[[Any], None], words: str
) -> None:
    refused(tmp_path, with_manifest(sound, change), words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
        (b"[" * 600_000, "too large: 600,000 bytes, 600,000 lists"),
        (b'{"format": NaN}\n', "NaN is not a JSON number"),
        (b'{"format": 1, "format": 1}\n', "not spelled as flyweight writes it"),
        (b'{"format":1}\n', "not spelled as flyweight writes it"),
        (b'{\n "format": "\\ud800"\n}\n', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"1" * 5000, "is not JSON"),
        (b"", "is not JSON"),
    ],
)
def test_hostile_json_is_refused(tmp_path: Path, sound: mutations.Files, text: bytes, words: str) -> None:
    refused(tmp_path, {**sound, "manifest.json": text}, words)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_only_plain_files_are_read(tmp_path: Path, sound: mutations.Files, kind: str) -> None:
    path = placed(tmp_path, sound)
    (tmp_path / "aside").write_bytes(sound["report.html"])
    (path / "report.html").unlink()
    if kind == "link":
        (path / "report.html").symlink_to(tmp_path / "aside")
    elif kind == "folder":
        (path / "report.html").mkdir()
    else:
        os.mkfifo(path / "report.html")
    with pytest.raises(BundleError, match=r"report\.html is a link or no plain file"):
        read_bundle(path)


def test_linked_manifest_is_refused(tmp_path: Path, sound: mutations.Files) -> None:
    path = placed(tmp_path, sound)
    (path / "manifest.json").rename(tmp_path / "manifest.json")
    (path / "manifest.json").symlink_to(tmp_path / "manifest.json")
    with pytest.raises(BundleError, match=r"link|cannot be read"):
        read_bundle(path)


def test_oversized_file_is_refused_unread(tmp_path: Path, sound: mutations.Files) -> None:
    path = placed(tmp_path, sound)
    os.truncate(path / "samples.json", 2**33)  # a hole: it takes no space, and would take 8 GB to read
    with pytest.raises(BundleError, match="has 8,589,934,592 bytes, at most 67,108,864 are read"):
        read_bundle(path)


def outside(key: str, value: str) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        tensor = next(one for one in model.graph.initializer if one.external_data)
        next(entry for entry in tensor.external_data if entry.key == key).value = value

    return change


def constant(name: str, array: Any) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        tensor = next(one for one in model.graph.initializer if one.name == name)
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    return change


def dims(name: str, *sizes: int) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        tensor = next(one for one in model.graph.initializer if one.name == name)
        tensor.dims[:] = sizes

    return change


def instead(place: int, *nodes: onnx.NodeProto, **constants: Any) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        rest = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([*rest[:place], *nodes, *rest[place + 1 :]])
        model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())

    return change


def attribute(place: int, name: str, value: Any) -> Callable[[ModelProto], None]:
    return lambda model: model.graph.node[place].attribute.append(helper.make_attribute(name, value))


def concat_with_itself(times: int) -> list[onnx.NodeProto]:
    names = ["s", *(f"s{step}" for step in range(times - 1)), "score_column"]
    return [helper.make_node("Concat", [one, one], [other], axis=1) for one, other in pairwise(names)]


def int64(*values: int) -> Any:
    import numpy as np

    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (outside("location", "../../etc/passwd"), r"points to '../../etc/passwd', where only 'model.onnx.data'"),
        (outside("location", "/etc/passwd"), "points to '/etc/passwd'"),
        (outside("location", "./model.onnx.data"), "points to './model.onnx.data'"),
        (outside("offset", "999999"), "from 999,999 on"),
        (outside("offset", "-1"), "which is no whole number"),
        (outside("length", str(2**62)), "claims 4,611,686,018,427,387,904"),
        (dims("w1", 2**40, 2**40), "needs"),
        (dims("w1", -1, 8), r"has shape \[-1, 8\]"),
        (dims("one", 5), "of shape .5. needs 40 bytes or values and has 8"),
        (instead(9, helper.make_node("Loop", ["h"], ["r"])), "holds the operator 'Loop'"),
        (instead(9, helper.make_node("If", ["h"], ["r"])), "holds the operator 'If'"),
        (instead(9, helper.make_node("Relu", ["h"], ["r"], domain="own")), "holds the operator 'own.Relu'"),
        (instead(9, helper.make_node("StringNormalizer", ["h"], ["r"])), "holds the operator 'StringNormalizer'"),
        (instead(9, helper.make_node("Relu", ["nowhere"], ["r"])), "reads 'nowhere', which nothing before it makes"),
        (instead(9, helper.make_node("Relu", ["h", "h"], ["r"])), "has 2 inputs, 1 to 1 are due"),
        (instead(9, helper.make_node("Expand", ["h", "huge"], ["r"]), huge=int64(2**33, 1, 8)), "past the bounds"),
        (instead(9, helper.make_node("Tile", ["h", "huge"], ["r"]), huge=int64(2**20, 2**20)), "past the bounds"),
        (instead(9, helper.make_node("ConstantOfShape", ["huge"], ["r"]), huge=int64(2**62)), "cannot be known|past"),
        (
            instead(
                9, helper.make_node("Range", ["a", "b", "c"], ["r"]), a=int64(0)[0], b=int64(2**40)[0], c=int64(1)[0]
            ),
            "past",
        ),
        (instead(10, *concat_with_itself(40)), "past the bounds|nothing"),
        (instead(9, helper.make_node("LayerNormalization", ["h", "b1", ""], ["r"])), "names no bias"),
        (instead(9, helper.make_node("Einsum", ["h"], ["r"], equation="a.b")), "has the equation b'a.b' for 1 inputs"),
        (instead(9, helper.make_node("Split", ["h"], ["r", "t"], num_outputs=3)), "has 2 outputs and says 3"),
        (attribute(8, "transX", 1), "unknown or doubled attribute 'transX'"),
        (attribute(8, "transA", 0.5), "attribute 'transA' of the wrong type"),
        (lambda m: m.graph.node[9].attribute.append(helper.make_attribute("body", m.graph)), "attribute 'body'"),
        (lambda m: m.functions.add(name="f", domain="own"), "it holds functions"),
        (lambda m: m.graph.sparse_initializer.add(), "sparse constants"),
        (lambda m: setattr(m, "ir_version", 99), "of ONNX format 99"),
        (lambda m: setattr(m.opset_import[0], "version", 99), "operator set 99; this environment reads up to"),
        (lambda m: setattr(m.opset_import[0], "version", 7), "13 or more is due"),
        (lambda m: m.graph.output.append(m.graph.output[0]), "it has 2 outputs"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 5), "after an open batch"),
        (lambda m: setattr(m.graph.input[0], "name", "someone"), "it reads 'someone', not among|reads 'user_id'"),
        (lambda m: setattr(m.graph.node[0], "name", "x" * 10_000_000), None),
    ],
)
def test_hostile_graph_is_refused(
    tmp_path: Path, sound: mutations.Files, change: Callable[[ModelProto], Any], words: str | None
) -> None:
    files = with_model(sound, change)
    if words is None:
        read_bundle(placed(tmp_path, files))  # a long name is odd, and harms nobody
    else:
        refused(tmp_path, files, words)


def test_name_that_is_not_text_is_refused(tmp_path: Path, sound: mutations.Files) -> None:
    data = sound["model.onnx"].replace(b"user_row", b"user\xff\xfe\xfd\xfc")
    refused(tmp_path, mutations.repaired({**sound, "model.onnx": data}), "is not UTF-8")


def test_unknown_protobuf_field_is_refused(tmp_path: Path, sound: mutations.Files) -> None:
    data = sound["model.onnx"] + b"\xfa\x3f\x01x"  # field 1023, one byte
    refused(tmp_path, mutations.repaired({**sound, "model.onnx": data}), "unknown field 1023")


def test_division_of_ids_by_zero_is_refused(tmp_path: Path, sound: mutations.Files) -> None:
    def change(model: ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(int64(0), "zero"))
        model.graph.node.insert(0, helper.make_node("Mod", ["item_id", "zero"], ["odd"], name="remainder"))

    refused(
        tmp_path,
        with_model(sound, change),
        "Mod 'remainder' divides whole numbers by what is 0, -1 or no small constant",
    )
