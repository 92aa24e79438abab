"""What a version is: a bundle, and the raw values that it was opened with.

Both may be replaced on the disk while the version is served. A process that opens it again, because another one died,
must not answer with other ids than the rest.
"""

import hashlib
from pathlib import Path


def identity_of(manifest: str, vocabulary: str) -> str:
    """Return the identity of a bundle whose manifest has a hash, with a vocabulary whose file has one; "" for none.

    Example:
        >>> identity_of("5bf2", ""), identity_of("5bf2", "2b09")
        ('5bf2', '5bf2+2b09')
    """
    return f"{manifest}+{vocabulary}" if vocabulary else manifest


def what_differs(due: str, seen: str) -> str:
    """Return in words what of a version is another one.

    Example:
        >>> what_differs("5bf2+2b09", "5bf2+77aa")
        "the vocabulary's file has the hash 77aa, and had 2b09"
    """
    (due_manifest, _, due_vocabulary), (manifest, _, vocabulary) = due.partition("+"), seen.partition("+")
    if due_manifest != manifest:
        return f"its manifest has the hash {manifest[:12]}, and had {due_manifest[:12]}"
    return f"the vocabulary's file has the hash {vocabulary[:12] or 'of none'}, and had {due_vocabulary[:12] or 'none'}"


def hash_of_file(path: Path) -> str | None:
    """Return the SHA-256 of a file, None where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
