"""The port of a service: taken before anything is read, kept from other services, and listened at by the workers."""

import socket

from flyweight.errors import InputError


def bind_socket(host: str, port: int, option: str = "--port") -> socket.socket:
    """Return a socket that is bound and does not listen yet: until a worker is ready, callers are refused at once.

    Args:
        option: that named the port, for errors; the gRPC one is shared by workers that bind it themselves.

    Raises:
        InputError: the address is none of this machine, or taken.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, number)
    except OSError as error:
        raise InputError(f"--host {host!r} is no address: {error.strerror or error}.") from error
    try:
        if option == "--port":  # connections of a service that has just ended hold the port for a minute
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            # Workers bind it too, each its own socket. Such sockets share a port with any other service of this user,
            # and callers would get answers of both; so it is tried first whether the port is free.
            with socket.socket(family, kind, number) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise InputError(
            f"{host}:{port} cannot be taken: {error.strerror}. Choose another with {option}; 0 takes any free one."
        ) from error
    listening.set_inheritable(True)
    return listening
