"""How long work tells whoever watches how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Called now and then with the work's name, the units done and the units in all (`done == total` at its end)."""

    def __call__(self, label: str, done: int, total: int) -> None:
        """Show it, or leave it."""
        ...


def silent(label: str, done: int, total: int) -> None:
    """Show nothing: the default."""
