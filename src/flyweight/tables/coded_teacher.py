"""The step that lets a copy of the model with coded tables teach what follows, because it generalises better.

A table learns much by heart: most rows are seen once. Coded in few bits it forgets what only one example said, and its
scores on the examples of training become scores like any other's. Taught by it, a student does not learn the teacher's
memory of its training data (docs/planning.md has what that gives).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flyweight.tables.encode_tables import EncodeTables
from flyweight.task.change import Change
from flyweight.task.task import Task

STEP = "coded_teacher"


@dataclass(frozen=True)
class CodedTeacher:
    """Let the original with coded tables teach every later step; the model itself stays as it is.

    Give exactly one of the two:

    Args:
        ratio: table bytes before divided by after, of the teacher.
        codings: as `EncodeTables` takes them.
        seed: the same seed gives the same codes.

    Raises:
        InputError: not exactly one of the two, or one that makes no sense.

    Example:
        >>> CodedTeacher(ratio=64).name
        'coded_teacher'
    """

    ratio: float | None = None
    codings: Mapping[str, Any] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "codings", self.coding().codings)

    @property
    def name(self) -> str:
        """The step's name in recipes and reports."""
        return STEP

    def coding(self) -> EncodeTables:
        """Return the step that codes the teacher's tables."""
        return EncodeTables(ratio=self.ratio, codings=self.codings, seed=self.seed)

    def apply(self, task: Task) -> Change:
        """Return the task's model as it is, and the teacher of later steps.

        Raises:
            InputError: the tables cannot be coded so.
        """
        return teaching(self, task, self.coding().apply(task.with_model(task.original)))


def teaching(settings: CodedTeacher, task: Task, coded: Change) -> Change:
    """Return the change whose teacher is a coded model."""
    recipe = {name: value for name, value in asdict(settings).items() if value is not None}
    record = {**sizes_of(coded), "what": "teacher", "plan": [done for done in coded.done if done["what"] == "table"]}
    return Change(STEP, task.model, recipe, (record,), coded.skipped, teacher=coded.model)


def sizes_of(coded: Change) -> dict[str, int]:
    """Return table bytes before and after, over all tables that were coded."""
    tables = [done for done in coded.done if done["what"] == "table"]
    return {name: sum(done[name] for done in tables) for name in ("bytes_before", "bytes_after")}
