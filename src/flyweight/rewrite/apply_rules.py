"""Rules applied to a copy of a traced model until none fits any more, checked on real batches, undone where wrong."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, clean, module_of
from flyweight.rewrite.check import TOLERANCE, Batch, compare
from flyweight.rewrite.rule import Rule
from flyweight.task.change import Skipped

#: Rounds over all rules; each makes smaller what is left, and a model of the zoo needs four.
ROUNDS = 50


@dataclass(frozen=True)
class Done:
    """A rule that was applied: its name, how often, and the modules it was applied in."""

    rule: str
    times: int
    where: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Rewritten:
    """A model after its rewrites.

    Args:
        model: it; the rewrites that were wrong are not in it.
        done: what was applied.
        refused: where a rule might have fitted, and why it was not applied.
        undone: rules that changed the scores, with by how much.
        far: the largest difference of a score that is left, relative.
    """

    model: TracedModel
    done: tuple[Done, ...]
    refused: tuple[Skipped, ...]
    undone: tuple[Skipped, ...]
    far: float


Prepare = Callable[[TracedModel], TracedModel]
Between = Callable[[TracedModel], object]


def rewrite(
    traced: TracedModel,
    rules: Sequence[Rule],
    batches: Sequence[Batch],
    *,
    tolerance: float = TOLERANCE,
    prepare: Prepare = lambda copy: copy,
    between: Between = lambda copy: None,
    finish: Between = lambda copy: None,
    reference: nn.Module | None = None,
) -> Rewritten:
    """Apply rules to a copy of a model.

    Args:
        traced: left as it is.
        rules: tried in order, again and again.
        batches: flat, of real data; scores must stay within `tolerance` on all of them.
        prepare, between, finish: what is done to the copy before, after each round of rules, and at the end.
        reference: gives the scores that are due; None is `traced`.

    Returns:
        the model with all the rules that left the scores as they were.
    """
    reference = traced if reference is None else reference
    whole = _applied(traced, rules, prepare, between, finish)
    difference = compare(reference, whole.model, batches, tolerance)
    if difference.ok:
        return Rewritten(whole.model, whole.done, whole.refused, (), difference.far)
    # One by one, to know which of them it was.
    kept: list[Rule] = []
    undone: list[Skipped] = []
    best, far = Rewritten(trace(traced, {}), (), (), (), 0.0), 0.0
    for rule in [None, *rules]:
        tried = [*kept, rule] if rule is not None else []
        found = _applied(traced, tried, prepare, between, finish)
        difference = compare(reference, found.model, batches, tolerance)
        if difference.ok:
            kept, best, far = tried, found, difference.far
        elif rule is None:
            undone.append(Skipped("request only", f"undone: {difference.words}", "rewrite"))
            break
        else:
            undone.append(Skipped(rule.name, f"undone: {difference.words}", "rewrite"))
    return Rewritten(best.model, best.done, best.refused, tuple(undone), far)


def _applied(
    traced: TracedModel, rules: Sequence[Rule], prepare: Prepare, between: Between, finish: Between
) -> Rewritten:
    model = prepare(trace(traced, {}))
    body = model.body
    _let_views_copy(body)
    times = Counter({rule.name: 0 for rule in rules})
    where: dict[str, dict[str, None]] = {}
    between(model)
    for _ in range(ROUNDS):
        changed = False
        for rule in rules:
            before = times[rule.name]
            for node in rule.find(body):
                stale = times[rule.name] > before and node not in rule.find(body)
                if node._erased or stale or rule.check(body, node) is not None:
                    continue
                where.setdefault(rule.name, {})[module_of(node)] = None
                rule.apply(body, node)
                times[rule.name] += 1
                changed = True
            body.graph.eliminate_dead_code()
        between(model)
        if not changed:
            break
    refused = _refused(rules, model)
    finish(model)
    clean(body)
    done = tuple(Done(name, count, tuple(where[name])) for name, count in times.items() if count)
    return Rewritten(model, done, refused, (), 0.0)


def _let_views_copy(body: fx.GraphModule) -> None:
    """Make every view a reshape: what it reads may no longer lie one after another once a rule has changed it."""
    for node in body.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        node.target = torch.ops.aten.reshape.default


def _refused(rules: Sequence[Rule], model: TracedModel) -> tuple[Skipped, ...]:
    """Return what the rules find in the end and may not be applied to, each reason once a module."""
    found: dict[tuple[str, str, str], None] = {}
    for rule in rules:
        for node in rule.find(model.body):
            reason = rule.check(model.body, node)
            if reason is not None:
                found[rule.name, module_of(node) or node.name, reason] = None
    return tuple(Skipped(f"{rule} in {where}", reason, "rewrite") for rule, where, reason in found)
