"""How a service is guarded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Security:
    """How a service is guarded.

    Args:
        token_file: of callers; None lets everyone use it who reaches it.
        admin_token_file: of those who change what is served; None lets them do so from this machine alone.
        certificate, key: PEM files for TLS; None serves in the clear.
        insecure: whether all networks may reach a service that has no tokens.
    """

    token_file: str | None = None
    admin_token_file: str | None = None
    certificate: str | None = None
    key: str | None = None
    insecure: bool = False

    @property
    def tls(self) -> tuple[str, str] | None:
        """The certificate's and the key's path, None without TLS."""
        return (self.certificate, self.key) if self.certificate is not None and self.key is not None else None
