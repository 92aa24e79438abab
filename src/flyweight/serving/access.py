"""Who may do what: a token for using the service, another for changing what is served."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from flyweight.errors import InputError
from flyweight.serving.refusal import Refusal
from flyweight.serving.security import Security
from flyweight.serving.tokens import TokenFile

#: Asked by what starts and stops services, which has no tokens.
OPEN_PATHS = frozenset({"/v2/health/live", "/v2/health/ready"})
ADMIN_PATHS = ("/v2/repository/models/", "/v1/admin/")


#: Headers of which proxies add one or more to what they pass on.
PASSED_ON = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")


@dataclass(frozen=True)
class Origin:
    """Where a request comes from.

    Args:
        address: of the other end of its connection; "" where it has none.
        authorization: its header; "" where it has none.
        forwarded: whether someone passed it on for another.
        page: the header `Origin`, which browsers send for a page that is not the service's own.
        host: the header `Host`.
    """

    address: str = ""
    authorization: str = ""
    forwarded: bool = False
    page: str = ""
    host: str = ""


class Access:
    """Decides on requests.

    Args:
        security: of the service.

    Raises:
        InputError: a token file is bad.
    """

    def __init__(self, security: Security) -> None:
        self._tokens, self._admin_tokens = (
            None if path is None else TokenFile(Path(path)) for path in (security.token_file, security.admin_token_file)
        )

    @property
    def is_open(self) -> bool:
        """Whether everyone who reaches the service may use it."""
        return self._tokens is None

    def check_use(self, origin: Origin) -> None:
        """Check a request that changes nothing; whoever may change things may also use them.

        Raises:
            Refusal: it has no token that is good now.
        """
        if self._tokens is None:
            return
        try:
            self._tokens.check(origin.authorization)
        except Refusal:
            if self._admin_tokens is None:
                raise
            try:
                self._admin_tokens.check(origin.authorization)
                return
            except Refusal:
                pass
            raise

    def check_admin(self, origin: Origin) -> None:
        """Check a request that changes what is served.

        Raises:
            Refusal: it has no administrator's token; or, where there are none, does not come from this machine.
        """
        if self._admin_tokens is not None:
            self._check_admin_token(self._admin_tokens, origin)
            return
        self.check_use(origin)
        if origin.forwarded or not is_loopback(origin.address):
            raise Refusal(
                "What is served can be changed from the service's own machine alone; to allow it from others, serve "
                "with --admin-token-file.",
                "forbidden",
            )
        # A browser on this machine carries requests of any page to here: it tells whose they are.
        if origin.page and origin.page.partition("://")[2] != origin.host:
            raise Refusal(f"A page of {origin.page[:80]!r} may not change what is served here.", "forbidden")
        if not _names_this_machine(origin.host):
            raise Refusal(
                f"The request names the host {origin.host[:80]!r}; from this machine without a token it must be "
                "localhost or an address.",
                "forbidden",
            )

    def _check_admin_token(self, tokens: TokenFile, origin: Origin) -> None:
        try:
            tokens.check(origin.authorization)
        except Refusal as refusal:
            if self._tokens is None:
                raise
            try:
                self._tokens.check(origin.authorization)
            except Refusal:
                raise refusal from None
            raise Refusal(
                "The token may use the service and not change what is served; send one of --admin-token-file.",
                "forbidden",
            ) from None


def is_admin(path: str) -> bool:
    """Return whether a path changes what is served.

    Example:
        >>> is_admin("/v2/repository/models/ranker/unload"), is_admin("/v2/repository/index")
        (True, False)
    """
    return path.startswith(ADMIN_PATHS)


def is_loopback(host: str) -> bool:
    """Return whether an address, or a name that a service is bound to, is this machine's own.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _names_this_machine(host: str) -> bool:
    """Return whether a header `Host` cannot be a name that someone else's server of names points to here."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name in ("", "localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_binding(host: str, security: Security) -> list[str]:
    """Return warnings about how a service is bound.

    Raises:
        InputError: it would be open to a network without tokens, or half a pair of files is given.
    """
    if (security.certificate is None) != (security.key is None):
        given, lost = ("--certificate", "--key") if security.key is None else ("--key", "--certificate")
        raise InputError(f"{given} is given without {lost}; TLS needs both.")
    if is_loopback(host):
        return []
    warnings = []
    if security.token_file is None:
        if not security.insecure:
            raise InputError(
                f"--host {host} lets whoever reaches this machine use the service. Give --token-file, or --insecure "
                "where something else guards it."
            )
        warnings.append(f"Without --token-file whoever reaches {host} can use the service (--insecure).")
    if security.certificate is None:
        warnings.append(f"Without --certificate and --key, requests and tokens to {host} can be read on their way.")
    return warnings
