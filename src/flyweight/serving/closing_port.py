"""Closing a port that callers are just connecting to, without resetting one of them.

The kernel answers a caller by itself and puts the connection into a queue; whatever is in the queue when the socket
closes is reset. Between looking at the queue for the last time and closing the socket another caller may come. So
newcomers are turned away first, by a filter that drops the packet that opens a connection, and the queue is emptied
after that.

Source: Linux kernel, Documentation/networking/filter.rst.
"""

import contextlib
import ctypes
import socket
import struct
import sys

#: Classic BPF: load the flags of the TCP header; is it SYN without ACK? Then keep 0 bytes of the packet, else all.
_PROGRAM = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
_SO_ATTACH_FILTER = 26


def turn_newcomers_away(listening: socket.socket) -> None:
    """Let no new connection begin, in all processes that share the socket; those that have begun go on.

    Callers try again after a second, by which time the port is closed and they are refused. Where the system has no
    such filters nothing changes.
    """
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in _PROGRAM))
    program = struct.pack("HL", len(_PROGRAM), ctypes.addressof(code))
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
