"""The contract of a compression step."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from flyweight.task.change import Change
    from flyweight.task.task import Task


@runtime_checkable
class Step(Protocol):
    """A frozen dataclass of settings, validated when built, that turns a task's model into a smaller one.

    `apply` never changes `task.model`; it returns a `Change` with a new model. It looks at `task.train` and
    `task.validation` only: the test split belongs to the certificate.
    """

    @property
    def name(self) -> str:
        """The step's name in recipes and reports."""
        ...

    def apply(self, task: "Task") -> "Change":
        """Return the changed model and the record of what was done and left."""
        ...
