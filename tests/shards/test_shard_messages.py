"""Messages between a front and a server, as the system sends them."""

import socket
import threading

from flyweight.bundle.shards.messages import MAX_PARTS, Kind, read_exactly, read_header, send


def test_a_message_of_more_parts_than_the_system_takes_at_once_arrives_whole() -> None:
    parts = [number.to_bytes(2, "little") for number in range(3 * MAX_PARTS)]
    one, other = socket.socketpair()
    other.settimeout(10)
    with one, other:
        sender = threading.Thread(target=send, args=(one, Kind.ROWS, parts), daemon=True)
        sender.start()
        header = read_header(other, 2**20)
        assert header is not None
        assert read_exactly(other, header.bytes) == b"".join(parts)
        sender.join()
