"""Bearer tokens from a file: several, each with a day on which it ends, read again whenever the file changes.

A line is `TOKEN`, or `TOKEN EXPIRES` with a moment as ISO 8601 has it; what follows `#` is a comment. So tokens are
renewed without a restart: add the new one, let callers change over, let the old one end.
"""

import hashlib
import hmac
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flyweight.errors import InputError
from flyweight.serving.refusal import Refusal

logger = logging.getLogger("flyweight.serving")
#: Letters of the shortest token; 16 of a random one hold 96 bits.
SHORTEST = 16
#: Seconds between two looks at a file.
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Token:
    """A token as it is kept: its SHA-256, and when it ends in seconds of Unix time."""

    digest: bytes
    expires: float = float("inf")


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Return a file's tokens.

    Raises:
        InputError: it cannot be read, holds none, or a line is no token; says which line, never what it holds.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"The token file {path} cannot be read: {why}.") from None
    tokens = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words:
            tokens.append(_token(words, f"{path}, line {number}"))
    if not tokens:
        raise InputError(f"The token file {path} holds no token; give one a line, of {SHORTEST} letters or more.")
    return tuple(tokens)


def _token(words: list[str], where: str) -> Token:
    if len(words) > 2 or len(words[0]) < SHORTEST:
        seen = f"{len(words)} words" if len(words) > 2 else f"{len(words[0])} letters"
        raise InputError(f"{where}: give TOKEN of {SHORTEST} letters or more, then EXPIRES or nothing; seen {seen}.")
    if not (words[0].isascii() and words[0].isprintable()):  # a mark of byte order, which some editors begin with, too
        raise InputError(f"{where}: the token holds letters outside of ASCII, which no header can carry; make another.")
    digest = hashlib.sha256(words[0].encode()).digest()
    if len(words) == 1:
        return Token(digest)
    try:
        moment = datetime.fromisoformat(words[1])
    except ValueError:
        raise InputError(f"{where}: {words[1]!r} is no moment; write it as 2027-01-31T00:00:00Z.") from None
    return Token(digest, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


class TokenFile:
    """The tokens that are good now.

    Args:
        path: of the file; it is looked at again during use.

    Raises:
        InputError: it is bad at the start. Later a bad file is logged, and the tokens before it hold.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _mark(path)  # before it is read, so that a change in between is seen at the next look
        self._tokens = read_tokens(path)
        self._looked = time.monotonic()

    def check(self, authorization: str) -> None:
        """Check the header `Authorization` of a request.

        Raises:
            Refusal: it is missing, of another kind, or its token is unknown or has ended.
        """
        self._look()
        scheme, _, given = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            seen = f"the scheme {scheme[:20]!r}" if authorization.strip() else "no such header"
            raise Refusal(f"A token is needed: send 'Authorization: Bearer TOKEN'; seen {seen}.", "unauthorized")
        digest = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).digest()
        # All are compared, each in a time that does not tell how much of it agreed.
        found = [token for token in self._tokens if hmac.compare_digest(token.digest, digest)]
        if not found:
            raise Refusal("The token is not known here: it is none of the service's token file.", "unauthorized")
        ends = max(token.expires for token in found)
        if ends <= time.time():
            when = datetime.fromtimestamp(ends, UTC).isoformat(timespec="seconds")
            raise Refusal(f"The token expired at {when}; send a newer one.", "unauthorized")

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        mark = _mark(self._path)
        if mark == self._seen:
            return
        self._seen = mark
        try:
            self._tokens = read_tokens(self._path)
            logger.info("The token file %s changed and was read again.", self._path)
        except InputError as error:
            logger.error("%s The tokens that were read before still hold.", error)


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file does."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
