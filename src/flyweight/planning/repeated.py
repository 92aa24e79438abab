"""What scoring one request's candidates one by one computes again and again."""

from dataclasses import dataclass

from torch import Tensor

from flyweight.cost.macs import count_macs
from flyweight.errors import ExportError
from flyweight.planning.rewriting import counted, real_batches
from flyweight.rewrite.apply_rules import Done
from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.hoisted_model import HoistedModel, one_request
from flyweight.rewrite.rules import RULES
from flyweight.task.change import Skipped
from flyweight.task.task import Task


@dataclass(frozen=True)
class Repeated:
    """What scoring one request's candidates one by one computes again and again, in multiply-accumulates.

    Args:
        row: of one candidate as the model is written.
        request_only: how much of that reads nothing but the request.
        once: of a request, whatever its candidates, in the rewritten model; candidate: of each of them.
        done, refused, undone: the rewrites that fit, those that might have with the reason, those that were wrong.
    """

    row: int
    request_only: int
    once: int
    candidate: int
    done: tuple[Done, ...]
    refused: tuple[Skipped, ...]
    undone: tuple[Skipped, ...]

    @property
    def saved(self) -> float:
        """The share of a candidate's work that need not be done for each of them."""
        return 1 - self.candidate / self.row if self.row else 0.0


@dataclass(frozen=True, eq=False)
class Hoisting:
    """What hoisting finds.

    Args:
        repeated, model: None where nothing is scored by request, or the model cannot be traced.
        skipped: why not.
    """

    repeated: Repeated | None
    model: HoistedModel | None
    skipped: tuple[Skipped, ...] = ()


def find_repeated(task: Task, samples: list[dict[str, Tensor]]) -> Hoisting:
    """Return what a request computes more than once, and the model that computes it once."""
    batches = real_batches(task, samples)
    try:
        alone = hoist(task.model, task.inputs, batches, ())
        found = hoist(task.model, task.inputs, batches, RULES)
    except ExportError as error:
        return Hoisting(None, None, (Skipped("request hoisting", f"the model cannot be traced: {error}", "rewrite"),))
    if not isinstance(found.model, HoistedModel) or not isinstance(alone.model, HoistedModel):
        return Hoisting(None, None, (*found.refused, *found.undone))
    row = count_macs(task.model, {name: value[:1] for name, value in batches[0].items()}).total
    _, without_rules = _slope(alone.model, batches[0])
    once, candidate = _slope(found.model, batches[0])
    repeated = Repeated(row, row - without_rules, once, candidate, counted(found), found.refused, found.undone)
    return Hoisting(repeated, found.model)


def _slope(model: HoistedModel, batch: dict[str, Tensor]) -> tuple[int, int]:
    """Return the multiply-accumulates of a request before its first candidate, and of each candidate."""
    one, two = (
        count_macs(model, one_request({name: value[:rows] for name, value in batch.items()}, model.request_names)).total
        for rows in (1, 2)
    )
    return max(2 * one - two, 0), two - one
