"""A request told from its head: only a plain one, and nothing that the HTTP library would read in another way."""

import time

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.serving.plain_request import LONGEST_HEAD, read_start

LINE, LENGTH = b"POST /v2/models/m/infer HTTP/1.1\r\n", b"Content-Length: 3\r\n"


def test_target_size_and_headers_are_told() -> None:
    line = b"POST /v2/models/m.1/versions/a-2/infer HTTP/1.1\r\n"
    head = line + b"Host: x\r\nInference-Header-Content-Length: 99\r\nCONTENT-length:3 \r\nX-Odd:\r\n\r\n"
    told = read_start(head + b"abcPOST /")
    assert told is not None
    assert (told.model, told.version, told.head, told.size) == ("m.1", "a-2", len(head), len(head) + 3)
    assert told.headers[b"inference-header-content-length"] == b"99"
    assert told.headers[b"x-odd"] == b""


def test_connection_may_be_told_to_be_kept() -> None:
    assert read_start(LINE + LENGTH + b"Connection: Keep-Alive\r\n\r\n") is not None


@pytest.mark.parametrize(
    "start",
    [
        b"GET /v2 HTTP/1.1\r\nContent-Length: 3\r\n\r\n",
        b"POST /v1/rank HTTP/1.1\r\nContent-Length: 3\r\n\r\n",
        LINE + LENGTH,  # the head is not whole
        LINE + b"Host: x\r\n\r\n",
        LINE + LENGTH + LENGTH + b"\r\n",
        LINE + LENGTH + b"Content-Length : 4\r\n\r\n",
        LINE + LENGTH + b" folded: 4\r\n\r\n",
        LINE + LENGTH + b"A: b\nContent-Length: 4\r\n\r\n",
        LINE + LENGTH + b"A: b\rContent-Length: 4\r\n\r\n",
        LINE + LENGTH + b"A: \x00\r\n\r\n",
        LINE + LENGTH + b": b\r\n\r\n",
        LINE + b"Content-Length: -3\r\n\r\n",
        LINE + b"Content-Length: +3\r\n\r\n",
        LINE + b"Content-Length: 3, 4\r\n\r\n",
        LINE + b"Content-Length: 100000000\r\n\r\n",  # nobody may send on and on what is passed over
        LINE + LENGTH + b"Connection: close\r\n\r\n",
        LINE + LENGTH + b"Connection: keep-alive, Upgrade\r\n\r\n",
        LINE + LENGTH + b"Expect: 100-continue\r\n\r\n",
        LINE + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n",
        LINE + LENGTH + b"Upgrade: h2c\r\n\r\n",
        LINE.replace(b"1.1", b"1.0") + LENGTH + b"\r\n",
        LINE.replace(b"/m/", b"/%6d/") + LENGTH + b"\r\n",
        LINE.replace(b"infer", b"infer?a=b") + LENGTH + b"\r\n",
        LINE + b"A: " + b"a" * LONGEST_HEAD + b"\r\n" + LENGTH + b"\r\n",
    ],
)
def test_what_is_not_plain_is_left_to_the_library(start: bytes) -> None:
    assert read_start(start) is None
    assert read_start(start) is None  # nor when it is seen again


class Seen:
    """What the HTTP library makes of bytes."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.done = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done += 1


PIECES = st.sampled_from(
    [b"A: b", b"Content-Length: 3", b"content-length:3", b"Content-Length: 03", b"X-Request-Id: a b", b"Host:", b"\t",
     b"\r\n", b"\n", b"\r", b" ", b":", b"Connection: keep-alive", b"Transfer-Encoding: chunked", b"\x80", b"a"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=8))
def test_what_is_plain_is_read_as_the_library_reads_it(pieces: list[bytes]) -> None:
    sent = LINE + LENGTH + b"".join(pieces) + b"\r\n\r\nabc"
    told = read_start(sent)
    if told is None:
        return
    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    parser.feed_data(sent[: told.size])
    assert seen.done == 1
    assert parser.should_keep_alive()
    assert seen.body == sent[told.head : told.size]
    assert {name: value.strip() for name, value in seen.headers.items()} == told.headers  # it leaves a tab at the end


def test_head_of_nothing_but_spaces_takes_no_time() -> None:
    """Read with a pattern that tries each split of the spaces, a head of 4 kB took 10 to 25 ms of a worker."""
    begun = time.process_time()
    for turn in range(50):
        assert read_start(LINE + LENGTH + b"a%d:" % turn + b" " * 3_800 + b"\x80\r\n\r\n") is None
    assert time.process_time() - begun < 0.25
