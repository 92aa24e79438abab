"""Request hoisting: what depends on the request alone is worked out once, however many candidates it has.

From the fields' roles alone: `request_only` moves whole subgraphs to the requests; the rules push what is left further
down, through layers that read both sides. Prior art does it by hand in the model's code, or behind closed doors
(TorchEasyRec's INPUT_TILE, Kuaishou's MaRI).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.rewrite.apply_rules import Done, Rewritten, rewrite
from flyweight.rewrite.check import TOLERANCE, Batch
from flyweight.rewrite.hoisted_model import HoistedModel, add_index, flat
from flyweight.rewrite.request_only import hoist_request_only, read_sizes_off_rows
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.write_out import write_out_spreads
from flyweight.rewrite.write_out_rounding import write_out_rounding
from flyweight.task.change import Skipped
from flyweight.task.field import REQUEST_INDEX, Field


def hoist(
    model: nn.Module,
    fields: Mapping[str, Field],
    batches: Sequence[Batch],
    rules: Sequence[Rule],
    *,
    tolerance: float = TOLERANCE,
) -> Rewritten:
    """Return a model that works out each request once, a `HoistedModel`; a plain one where there is nothing to hoist.

    Args:
        model: traced if it is not; left as it is.
        fields: the inputs with their roles.
        batches: flat, of real data.
        rules: what is tried beside moving whole subgraphs.

    Raises:
        ExportError: the model cannot be traced.
    """
    traced = trace(model, dict(batches[0]))
    write_out_rounding(traced.body)
    reason = cannot_hoist(traced, fields)
    if reason is not None:
        plain = rewrite(traced, rules, batches, tolerance=tolerance)
        return Rewritten(
            plain.model, plain.done, (*plain.refused, Skipped("request hoisting", reason, "rewrite")), plain.undone,
            plain.far,
        )  # fmt: skip
    request = {name for name, field in fields.items() if field.role == "request" and name in traced.names}
    counts = _Moved()

    def prepare(copy: TracedModel) -> TracedModel:
        hoisted = add_index(copy, request)
        read_sizes_off_rows(hoisted.body)
        counts.moved = 0
        return hoisted

    def between(copy: TracedModel) -> None:
        counts.moved += hoist_request_only(copy.body)

    def finish(copy: TracedModel) -> None:
        write_out_spreads(copy.body)

    found = rewrite(traced, rules, batches, tolerance=tolerance, prepare=prepare, between=between, finish=finish)
    if not isinstance(found.model, HoistedModel):
        return rewrite(traced, [], batches) if found.undone == () else found
    moved = Done("request only", counts.moved, ())
    return Rewritten(found.model, (moved, *found.done), found.refused, found.undone, found.far)


@dataclass
class _Moved:
    """How many operators that ran for every row became the request's; those that read its inputs alone always were."""

    moved: int = 0


def cannot_hoist(traced: TracedModel, fields: Mapping[str, Field]) -> str | None:
    """Return why a model has no requests to work out once, None when it has."""
    roles = {fields[name].role for name in traced.names if name in fields}
    if "request" not in roles:
        return "no input has the role 'request'"
    if roles == {"request"}:
        return "every input has the role 'request', so no candidate is left to tell rows apart"
    if REQUEST_INDEX in traced.names:
        return f"an input is called {REQUEST_INDEX!r}; give it another name"
    if flat(traced.body):
        return "some input has a length of its own, as flat ids of bags do"
    return None
