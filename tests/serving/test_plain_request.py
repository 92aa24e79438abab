"""A request told from its first bytes: only a plain one, and never more bytes than are its own."""

import pytest

from flyweight.serving.unread_request import LONGEST_HEAD, read_start

LINE, LENGTH = b"POST /v2/models/m/infer HTTP/1.1\r\n", b"Content-Length: 3\r\n"


def test_path_and_size_are_told() -> None:
    head = LINE + b"Host: x\r\nInference-Header-Content-Length: 99\r\nCONTENT-length:3\r\n\r\n"
    assert read_start(head + b"abcPOST /") == ("/v2/models/m/infer", len(head) + 3)


@pytest.mark.parametrize(
    "start",
    [
        b"GET /v2 HTTP/1.1\r\nContent-Length: 3\r\n\r\n",
        LINE + LENGTH,  # the head is not whole
        LINE + b"Host: x\r\n\r\n",
        LINE + LENGTH + LENGTH + b"\r\n",
        LINE + LENGTH + b"Content-Length : 4\r\n\r\n",
        LINE + b"Content-Length: -3\r\n\r\n",
        LINE + b"Content-Length: 3, 4\r\n\r\n",
        LINE + b"Content-Length: 100000000\r\n\r\n",  # nobody may send on and on what is passed over
        LINE + LENGTH + b"Connection: close\r\n\r\n",
        LINE + LENGTH + b"Expect: 100-continue\r\n\r\n",
        LINE + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n",
        LINE.replace(b"1.1", b"1.0") + LENGTH + b"\r\n",
        LINE.replace(b"/m/", b"/%6d/") + LENGTH + b"\r\n",
        LINE + b"A: " + b"a" * LONGEST_HEAD + b"\r\n" + LENGTH + b"\r\n",
    ],
)
def test_what_is_not_plain_is_left_to_the_library(start: bytes) -> None:
    assert read_start(start) is None
