"""The certificate and the key of a service, checked before anything starts."""

import ssl
from pathlib import Path
from typing import Any

from flyweight.errors import InputError


def check_certificate(certificate: str, key: str) -> None:
    """Check that two PEM files are a certificate and its key.

    Raises:
        InputError: one cannot be read, or they do not belong together.
    """
    for option, path in (("--certificate", certificate), ("--key", key)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{option} {path} cannot be read: {error.strerror}.") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key under a password would be asked for on a terminal that no service has.
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise InputError(
            f"--certificate {certificate} and --key {key} are no certificate with its key, both PEM and the key "
            f"without a password: {error}."
        ) from None


def _no_password() -> str:
    raise ValueError("the key is under a password")


def grpc_credentials(certificate: str, key: str) -> Any:
    """Return what gRPC's server needs of the two files."""
    import grpc

    return grpc.ssl_server_credentials([(Path(key).read_bytes(), Path(certificate).read_bytes())])
