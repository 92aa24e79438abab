"""A task's data: the fields and three splits in memory."""

from dataclasses import dataclass

from flyweight.task.field import Field
from flyweight.zoo.batches import Batches


@dataclass(frozen=True, eq=False)
class Dataset:
    """Fields, and splits whose train rows lie in shuffled order, so that the first ones are a fair sample.

    Args:
        name: what the reports call it.
        fields: a `Field` for each input.
        fingerprint: SHA-256 of everything in it.
    """

    name: str
    fields: dict[str, Field]
    train: Batches
    validation: Batches
    test: Batches
    fingerprint: str

    @property
    def vocabulary(self) -> dict[str, int]:
        """The rows of each id field."""
        return {name: field.rows for name, field in self.fields.items() if field.rows is not None}
