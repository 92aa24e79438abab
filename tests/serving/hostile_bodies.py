"""Requests of the protocol v2 that were changed on purpose, the same ones for the same seed, and what came back.

`benchmarks/serving_hostile.py` sends a hundred thousand of them, the tests two thousand.
"""

import gzip
import json
import random
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
DATATYPES = {"int64": "INT64", "float32": "FP32"}
NUMPY = {
    "BOOL": "?", "INT8": "i1", "INT16": "i2", "INT32": "i4", "INT64": "i8", "UINT8": "u1", "UINT16": "u2",
    "UINT32": "u4", "UINT64": "u8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 0.5, 1e308, "", "x", "\u0000", "7" * 500, [], {}, [[]],
    {"a": []}, [None], [1, [2]],
)  # fmt: skip
RAW = (
    b"1e999", b"-1e999", b"NaN", b"Infinity", b"9" * 400, b"-0", b"00", b"\xff", b'"\\ud800"', b"[" * 3000, b"1" * 40,
)  # fmt: skip
HOPELESS = 200  # one in so many says that more follows than does: the service waits for it, then says so


@dataclass
class Sent:
    """A request's bytes.

    Args:
        body, headers: of it; a `content-length` among the headers is sent in the true one's place.
        how: the name of the change.
    """

    body: bytes
    how: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def lies(self) -> bool:
        """Whether its length is not what it says, so that what comes after it cannot be told from it."""
        return "content-length" in self.headers

    def wire(self, path: str = "/v2/models/ranker/infer") -> bytes:
        """The bytes as they are sent."""
        lines = {"host": "x", "content-length": str(len(self.body)), **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + self.body


def plain(arrays: Arrays) -> dict[str, Any]:
    """The JSON object of a request."""
    return {"inputs": [_entry(name, array) | {"data": array.tolist()} for name, array in arrays.items()]}


def binary(arrays: Arrays) -> tuple[dict[str, Any], bytes]:
    """The JSON object of a request, and the tensors' bytes that follow it."""
    inputs = [
        _entry(name, array) | {"parameters": {"binary_data_size": array.nbytes}} for name, array in arrays.items()
    ]
    return {"inputs": inputs}, b"".join(array.tobytes() for array in arrays.values())


def _entry(name: str, array: NDArray[Any]) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "datatype": DATATYPES[str(array.dtype)]}


def packed(header: dict[str, Any], data: bytes, how: str) -> Sent:
    """A request whose tensors follow its JSON."""
    words = json.dumps(header).encode()
    return Sent(words + data, how, {"inference-header-content-length": str(len(words))})


def hostile(arrays: Arrays, seed: int, count: int) -> Iterator[Sent]:
    """Yield requests, each a good one with one to three things changed."""
    rng = random.Random(seed)
    changes = [*CHANGES]
    for number in range(count):
        if number % HOPELESS == HOPELESS - 1:
            yield _longer(rng, arrays)
        else:
            yield rng.choice(changes)(rng, arrays)


def _either(rng: random.Random, arrays: Arrays, how: str) -> Sent:
    if rng.random() < 0.5:
        return packed(*binary(arrays), how)
    return Sent(json.dumps(plain(arrays)).encode(), how)


def _flip(rng: random.Random, arrays: Arrays) -> Sent:
    sent = _either(rng, arrays, "bits flipped")
    body = bytearray(sent.body)
    for _ in range(rng.randint(1, 8)):
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    sent.body = bytes(body)
    return sent


def _cut(rng: random.Random, arrays: Arrays) -> Sent:
    sent = _either(rng, arrays, "cut off")
    sent.body = sent.body[: rng.randrange(len(sent.body))]
    return sent


def _moved(rng: random.Random, arrays: Arrays) -> Sent:
    sent = _either(rng, arrays, "bytes put in, taken out or said twice")
    body, place, size = sent.body, rng.randrange(len(sent.body)), rng.randint(1, 40)
    middle = rng.choice((rng.randbytes(size), b"", body[place : place + size] * 2))
    sent.body = body[:place] + middle + body[place + size * rng.randint(0, 1) :]
    return sent


def _header_length(rng: random.Random, arrays: Arrays) -> Sent:
    sent = packed(*binary(arrays), "header length wrong")
    true = int(sent.headers["inference-header-content-length"])
    lies = (0, -1, true - 1, true + 1, rng.randrange(2 * len(sent.body)), 10**30, "x", "", "1e3", "0x10", " ")
    sent.headers["inference-header-content-length"] = str(rng.choice(lies))
    return sent


def _shorter(rng: random.Random, arrays: Arrays) -> Sent:
    sent = _either(rng, arrays, "content length too short, or none")
    length = rng.choice((str(rng.randrange(len(sent.body))), "-1", "x", "9" * 30, "1, 2"))
    sent.headers["content-length"] = length
    return sent


def _longer(rng: random.Random, arrays: Arrays) -> Sent:
    sent = _either(rng, arrays, "content length too long")
    sent.headers["content-length"] = str(len(sent.body) + rng.randint(1, 1000))
    return sent


def _entries(rng: random.Random, arrays: Arrays) -> Sent:
    """Say something else of a tensor, of its values or of the whole request."""
    header, data = binary(arrays) if rng.random() < 0.5 else (plain(arrays), b"")
    for _ in range(rng.randint(1, 3)):
        where = rng.choice(header["inputs"])
        if not isinstance(where, dict):
            break
        what = rng.choice(("name", "shape", "datatype", "data", "parameters", "top", "drop", "again", "size"))
        if what == "top":
            key = rng.choice(("id", "parameters", "outputs", "inputs", "other"))
            header[key] = json.loads(json.dumps(rng.choice(ODD)))  # of its own: lists are changed further
        elif what == "drop":
            header["inputs"].remove(where)
        elif what == "again":
            header["inputs"].append(dict(where))
        elif what == "size":
            where["parameters"] = {"binary_data_size": rng.choice((*ODD, 10**30, len(data), 1))}
        else:
            sizes = [rng.randint(-2, 2**40)] * rng.randint(1, 9)
            where[what] = rng.choice((*ODD, rng.choice([*NUMPY, "BYTES"]), sizes))
        if not isinstance(header["inputs"], list) or not header["inputs"]:
            break
    sent = packed(header, data, "said otherwise")
    if not data:
        del sent.headers["inference-header-content-length"]
    return sent


def _values(rng: random.Random, arrays: Arrays) -> Sent:
    """Put an odd value among a tensor's."""
    header = plain(arrays)
    data = rng.choice(header["inputs"])["data"]
    data[rng.randrange(len(data))] = rng.choice(ODD)
    return Sent(json.dumps(header).encode(), "odd values")


def _spelled(rng: random.Random, arrays: Arrays) -> Sent:
    """Spell a value as no JSON does, or as no number is."""
    header = plain(arrays)
    data = rng.choice(header["inputs"])["data"]
    data[rng.randrange(len(data))] = "HERE"
    return Sent(json.dumps(header).encode().replace(b'"HERE"', rng.choice(RAW), 1), "odd spelling")


def _deep(rng: random.Random, arrays: Arrays) -> Sent:
    opening, depth = rng.choice((b"[", b'{"inputs":', b'{"a":[')), rng.choice((10, 1000, 20_000))
    return Sent(opening * depth + (b"1" + b"]" * depth if rng.random() < 0.5 else b""), "deep")


def _numbers(rng: random.Random, arrays: Arrays) -> Sent:
    """Put NaN, infinite numbers or ids that no vocabulary holds into the bytes."""
    changed = {name: array.copy() for name, array in arrays.items()}
    name = rng.choice([*changed])
    odd = (np.nan, np.inf, -np.inf, 3e38) if changed[name].dtype.kind == "f" else (-1, 2**62, -(2**63), 10**7, 300)
    changed[name][rng.randrange(len(changed[name]))] = rng.choice(odd)
    return packed(*binary(changed), "odd numbers")


def _rows(rng: random.Random, arrays: Arrays) -> Sent:
    """Give a tensor other rows than the others have."""
    changed = {name: array.copy() for name, array in arrays.items()}
    name = rng.choice([*changed])
    changed[name] = np.resize(changed[name], rng.choice(((0,), (1,), (3,), (len(changed[name]), 1), (2, 2), ())))
    return packed(*binary(changed), "other rows")


def _index(rng: random.Random, arrays: Arrays) -> Sent:
    """Say which request each candidate belongs to, mostly wrong."""
    rows = max(map(len, arrays.values()))
    index = np.sort(np.array([rng.choice((-1, 0, 0, 1, 2, 2**40)) for _ in range(rng.choice((rows, rows, 1)))]))
    return packed(*binary({**arrays, "request_index": rng.choice((index, index[::-1].copy()))}), "request index")


def _packing(rng: random.Random, arrays: Arrays) -> Sent:
    sent = _either(rng, arrays, "packed otherwise than said")
    sent.headers["content-encoding"] = rng.choice(("gzip", "deflate", "br", "identity", "gzip, gzip", "\u00e9", ""))
    if rng.random() < 0.5:
        whole = gzip.compress(sent.body, 1, mtime=0)
        cut, longer, bomb = whole[: rng.randrange(len(whole))], whole + b"more", gzip.compress(bytes(2**25), 9, mtime=0)
        sent.body = rng.choice((whole, cut, longer, bomb))
    return sent


Change = Callable[[random.Random, Arrays], Sent]
CHANGES: tuple[Change, ...] = (
    *(_flip, _cut, _moved, _header_length, _shorter, _values, _spelled, _numbers, _rows, _index) * 3,
    *(_entries,) * 12,
    _deep,
    _packing,
)


@dataclass
class Sender:
    """One connection, opened again where the service closed it.

    Args:
        address: host:port.
        opened: how many connections were needed.
    """

    address: str
    opened: int = 0
    _connection: socket.socket | None = None

    def ask(self, sent: Sent, path: str = "/v2/models/ranker/infer") -> list[tuple[int, bytes]]:
        """Return status and body of each answer; more than one where a request's length was a lie."""
        if self._connection is None:
            host, port = self.address.rsplit(":", 1)
            self._connection = socket.create_connection((host, int(port)), timeout=30)
            self.opened += 1
        connection, buffer = self._connection, b""
        answers: list[tuple[int, bytes]] = []
        try:
            connection.sendall(sent.wire(path))
            while part := connection.recv(1 << 18):
                buffer += part
                whole = _answers(buffer)
                if whole and not sent.lies:
                    break
        except ConnectionError:
            part = b""
        answers = _answers(buffer)
        if not part or b"\r\nconnection: close\r\n" in buffer.lower():
            self.close()
        return answers

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _answers(buffer: bytes) -> list[tuple[int, bytes]]:
    """Return the whole answers in a buffer."""
    found = []
    while True:
        head, gap, rest = buffer.partition(b"\r\n\r\n")
        if not gap:
            return found
        lines = head.lower().split(b"\r\n")
        length = next((int(one.split(b":")[1]) for one in lines if one.startswith(b"content-length:")), 0)
        if len(rest) < length:
            return found
        found.append((int(head.split()[1]), rest[:length]))
        buffer = rest[length:]


def decoded(sent: Sent) -> dict[str, NDArray[Any]]:
    """Return the arrays of a request that was answered, by code of its own: what it must have been scored as."""
    body = gzip.decompress(sent.body) if sent.headers.get("content-encoding") in ("gzip", "deflate") else sent.body
    size = int(sent.headers.get("inference-header-content-length", len(body)))
    header, place, found = json.loads(body[:size]), size, {}
    for entry in header["inputs"]:
        length = (entry.get("parameters") or {}).get("binary_data_size")
        kind = NUMPY.get(entry["datatype"], "O")
        if length is None:
            array = np.array(entry["data"], dtype=object).astype(kind)
        else:
            array, place = np.frombuffer(body[place : place + length], kind), place + length
        found[entry["name"]] = array.reshape(entry["shape"])
    return found
