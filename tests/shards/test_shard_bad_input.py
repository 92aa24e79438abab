"""Sharded bundles that are cut, altered or asked for wrongly, and servers that are told what is not so."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from shard_servers import served

import flyweight as fw
from flyweight.bundle.read import read_bundle
from flyweight.bundle.shards.messages import HEADER, HELLO, MAGIC, VERSION, WANTED, Kind, read_header, read_words
from flyweight.bundle.shards.read import read_front
from flyweight.bundle.shards.shard import shard
from flyweight.bundle.shards.shard_folder import open_shard
from flyweight.bundle.strict_json import canonical
from flyweight.bundle.write import write_bundle
from flyweight.errors import BundleError, InputError
from flyweight.serving.shard_server import ShardServer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    return write_bundle(folder / "r.fly", tiny_models.contents(folder / "e"))


@pytest.fixture(scope="module")
def split(whole: Path) -> Path:
    return shard(whole, whole.parent / "s.fly", shards=2, over=1).path


@pytest.fixture
def copy(split: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(split, tmp_path / "s.fly"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shards": 0}, "from 1 to 1,024; seen 0"),
        ({"shards": 2, "by": "luck"}, "'rows' or 'tables'; seen 'luck'"),
        ({"shards": 2}, r"no table of 1,048,576 bytes or more that can be split; the largest, 'users', has 320"),
        ({"shards": 21, "over": 1}, "21 shards are more than the 20 rows of table 'users'"),
        ({"shards": 3, "over": 1, "by": "tables"}, "3 shards are more than the 2 tables of .*'users', 'codes'"),
        ({"shards": 2, "over": -1}, "0 or more; seen -1"),
    ],
)
def test_what_cannot_be_split_is_refused_in_words(
    whole: Path, tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        shard(whole, tmp_path / "s.fly", **given)
    assert not list(tmp_path.iterdir())


def test_existing_target_is_left_alone(whole: Path, split: Path) -> None:
    before = (split / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="exists"):
        shard(whole, split, shards=2, over=1)
    assert (split / "manifest.json").read_bytes() == before


def test_same_bundle_gives_the_same_bytes(whole: Path, split: Path, tmp_path: Path) -> None:
    again = shard(whole, tmp_path / "s.fly", shards=2, over=1).path
    names = [path.relative_to(split) for path in sorted(split.rglob("*")) if path.is_file()]
    assert Path("shard-1/rows.bin") in names
    assert all((split / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_codebook_read_by_codes_of_the_shards_stays_in_the_front_and_says_so(split: Path) -> None:
    (kept,) = read_front(split).plan.kept
    assert kept.what == "codebook"
    assert "which rows are read follows from the rows of another large table" in kept.why


def test_whole_and_sharded_bundles_are_not_taken_for_each_other(whole: Path, split: Path) -> None:
    with pytest.raises(BundleError, match=r"is a sharded bundle.*shards="):
        read_bundle(split)
    with pytest.raises(InputError, match="is not sharded"):
        fw.load(whole, shards=["127.0.0.1:1"])


def test_truncated_shard_is_refused(copy: Path) -> None:
    rows = copy / "shard-0" / "rows.bin"
    rows.write_bytes(rows.read_bytes()[:-3])
    with pytest.raises(BundleError, match=r"rows.bin has [\d,]+ bytes, [\d,]+ are due"):
        open_shard(copy / "shard-0")


def test_altered_byte_of_a_shard_is_refused(copy: Path) -> None:
    rows = copy / "shard-1" / "rows.bin"
    data = bytearray(rows.read_bytes())
    data[5] ^= 1
    rows.write_bytes(data)
    with pytest.raises(BundleError, match=r"rows.bin hashes to .* is due"):
        ShardServer(copy / "shard-1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shard": 2}, "shard 2 is not among the 2 of its plan"),
        ({"shards": 1, "shard": 1}, "shard 1 is not among the 1"),
        ({"format": 2}, "format"),
        ({"colour": 1}, "key 'colour' is unknown"),
    ],
)
def test_altered_record_of_a_shard_is_refused(copy: Path, change: dict[str, Any], words: str) -> None:
    file = copy / "shard-0" / "shard.json"
    file.write_bytes(canonical({**json.loads(file.read_text()), **change}))
    with pytest.raises(BundleError, match=words):
        open_shard(copy / "shard-0")


def test_table_past_the_end_of_its_file_is_refused(copy: Path) -> None:
    file = copy / "shard-0" / "shard.json"
    record = json.loads(file.read_text())
    record["tables"][0]["rows"] = 2**40
    file.write_bytes(canonical(record))
    with pytest.raises(BundleError, match="table 'users' runs past the"):
        open_shard(copy / "shard-0")


@pytest.mark.parametrize("name", ["model.onnx", "lookups.onnx", "samples.json"])
def test_altered_file_of_the_front_is_refused(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} hashes to"):
        read_front(copy)


def rehashed(folder: Path, change: Any) -> None:
    """Alter a front's manifest as someone would who can hash."""
    import hashlib

    from flyweight.bundle.strict_json import checksum

    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    data = canonical(manifest)
    (folder / "manifest.json").write_bytes(data)
    timing = json.loads((folder / "timing.json").read_text())
    timing["files"]["manifest.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    del timing["checksum"]
    (folder / "timing.json").write_bytes(canonical({**timing, "checksum": checksum(timing)}))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("tables", 0, "rows"), 21, "pieces do not cover the 21 rows"),
        (("tables", 0, "pieces", 0, "shards"), [0, 7], "a shard that is not among the 2"),
        (("lookups", 0, "table"), 9, "a table that is not among the 2"),
        (("lookups", 0, "places"), "nowhere", "does not make 'nowhere'"),
        (("lookups", 0, "rows"), "price", "does not take the rows that the plan looks up"),
        (("lookups", 0, "table"), 1, "of another shape or type than the plan's table"),
        (("tables", 0, "edges"), [3], "edges of 'users' do not rise from 0"),
        (("shards",), 3, "2 files for 3 shards"),
    ],
)
def test_plan_that_does_not_fit_is_refused(copy: Path, place: tuple[Any, ...], value: Any, words: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        inner: Any = manifest["shards"]
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = value

    rehashed(copy, change)
    with pytest.raises(BundleError, match=words):
        read_front(copy)


def test_file_that_does_not_belong_beside_a_front_is_refused(copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"holds 'notes\.txt', which is not part of a bundle"):
        read_front(copy)


def test_front_without_the_shards_beside_it_is_read(copy: Path) -> None:
    shutil.rmtree(copy / "shard-0")
    shutil.rmtree(copy / "shard-1")
    assert read_front(copy).plan.shards == 2


def test_taken_port_is_refused_in_words(split: Path) -> None:
    with (
        served(split / "shard-0") as (address,),
        pytest.raises(InputError, match=r"cannot be listened on .*choose another --port"),
    ):
        ShardServer(split / "shard-1", port=int(address.rpartition(":")[2]))


def header(kind: int, size: int, tables: int = 0, magic: bytes = MAGIC, version: int = VERSION) -> bytes:
    return HEADER.pack(magic, version, kind, tables, 0, size)


def ask(*tables: tuple[int, int], places: list[int], said: int | None = None) -> bytes:
    body = b"".join(WANTED.pack(*table) for table in tables) + np.array(places, "<u4").tobytes()
    return header(Kind.ASK, len(body) if said is None else said, len(tables)) + body


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: me\r\n\r\n", "no message of a shard"),
        (header(Kind.ASK, 4, version=9), "speaks version 9 of the protocol, this is 1"),
        (header(77, 4), "kind of message 77 is unknown"),
        (header(Kind.ASK, 2**40), "a message of 1,099,511,627,776 bytes was announced"),
        (header(Kind.ROWS, 0), "a call is due; seen ROWS"),
        (header(Kind.ASK, 0, tables=5), "a call for 5 tables needs 60 bytes or more; seen 0"),
        (ask((9, 1), places=[0]), "table 9 is asked for; this shard has 2"),
        (ask((0, 2**60), places=[0]), "says that it asks for 1,152,921,504,606,846,976 rows"),
        (ask((0, 1), places=[10]), "row 10 of table 0 is asked for; this shard has 10"),
        (ask((0, 1), places=[0, 1]), "a call has 20 bytes, and 16 by its own numbers"),
    ],
)
def test_message_that_lies_is_refused_and_the_server_goes_on(split: Path, message: bytes, words: str) -> None:
    front = read_front(split)
    hello = HELLO.pack(bytes.fromhex(front.hash), 0, 2)
    with served(split / "shard-0", split / "shard-1") as addresses:
        host, _, port = addresses[0].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5.0) as link:
            link.sendall(header(Kind.HELLO, len(hello)) + hello)
            welcome = read_header(link, 2**20)
            assert welcome is not None
            link.recv(welcome.bytes, socket.MSG_WAITALL)
            link.sendall(message)
            answer = read_header(link, 2**20)
            assert answer is not None
            assert answer.kind == Kind.REFUSED
            assert words in read_words(link, answer)
        with fw.load(split, shards=addresses) as ranker:
            assert ranker.score({"user_id": 7}, {"item_id": [3], "price": [1.0]}).shape == (1,)
