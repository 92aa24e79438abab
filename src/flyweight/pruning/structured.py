"""Whole units pruned: measured, chosen, cut together with all that is coupled to them, and recovered, in rounds."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from flyweight.distillation.recover import recover
from flyweight.errors import InputError
from flyweight.graph.coupling import Group, find_groups
from flyweight.graph.shrink import macs_of, try_shrink
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.pruning.blocks import Block, block_saliency, find_blocks, without_blocks
from flyweight.pruning.calibration import calibration_pieces, first_inputs
from flyweight.pruning.choose_units import (
    Keep,
    Slice,
    by_count,
    by_macs,
    in_order,
    kept,
    slices_of,
    step_of,
)
from flyweight.pruning.saliency import ABSOLUTE, unit_saliency
from flyweight.pruning.schedule import geometric_shares
from flyweight.pruning.sparse_packing import with_dense_weights
from flyweight.task.change import Change, Skipped
from flyweight.task.task import Task

if TYPE_CHECKING:
    from flyweight.pruning.prune import Prune

#: Rows on which the removal of whole blocks is tried.
BLOCK_ROWS = 512


@dataclass(frozen=True, eq=False)
class Thinned:
    """A model under way.

    Args:
        model: as it is now.
        sizes: how many units each group has left.
        left: groups that could not be cut after all.
        dropped: blocks that are gone.
        rounds: what each round left, and how the model stood before and after its recovery.
        interrupted: whether the user stopped a recovery.
    """

    model: TracedModel
    sizes: dict[str, int]
    left: tuple[Skipped, ...] = ()
    dropped: tuple[str, ...] = ()
    rounds: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    interrupted: bool = False


def prune_units(task: Task, settings: "Prune") -> Change:
    """Take whole units away; see `Prune`.

    Raises:
        InputError: `max_macs` cannot be reached.
    """
    traced = with_dense_weights(trace(task.model, first_inputs(task)))
    groups, skipped = _cuttable(traced, settings)
    macs = macs_of(traced, {})
    blocks = find_blocks(traced) if "blocks" in settings.kinds else ()
    if settings.max_macs is not None and macs <= settings.max_macs:
        why = f"it takes {macs:,} multiply-accumulates a row, within max_macs={settings.max_macs:,} as it is"
        return Change(settings.name, task.model, settings.recipe(), (), (Skipped("the model", why, settings.name),))
    if not groups and not blocks:
        why = f"it has no unit of the kinds {', '.join(settings.kinds)} that could be cut safely"
        nothing = Skipped("the model", why, settings.name)
        return Change(settings.name, task.model, settings.recipe(), (), (*skipped, nothing))
    thinned = Thinned(traced, {group.name: len(group.units) for group in groups})
    for number in range(settings.rounds):
        thinned = _round(task, thinned, settings, _Aim(settings, number, groups, len(blocks), macs))
        if thinned.interrupted:
            break
    done = _records(groups, thinned, macs)
    if all(record["what"] == "round" for record in done):
        why = f"the nearest to ratio={settings.ratio} that widths allow is nothing; ask for more, or give multiple=1"
        skipped = (*skipped, Skipped("the model", why, settings.name))
    skipped = tuple(dict.fromkeys((*skipped, *thinned.left)))
    model = thinned.model if len(done) > len(thinned.rounds) else task.model
    return Change(settings.name, model, settings.recipe(), tuple(done), skipped, interrupted=thinned.interrupted)


class _Aim:
    """What a round is to reach."""

    def __init__(self, settings: "Prune", number: int, groups: Sequence[Group], blocks: int, macs: int) -> None:
        left = geometric_shares(1 - (settings.ratio or 0.0), settings.rounds)[number]
        self.share = 1 - left  # of what the model had at first
        self.sizes = {group.name: len(group.units) for group in groups}
        self.blocks = round(blocks * self.share)
        self.macs: float | None = None
        if settings.max_macs is not None:
            self.macs = macs * geometric_shares(settings.max_macs / macs, settings.rounds)[number]

    def gone(self, thinned: Thinned, group: str) -> int:
        """Return how many units a group has lost."""
        return self.sizes[group] - thinned.sizes[group]


def _cuttable(traced: TracedModel, settings: "Prune") -> tuple[tuple[Group, ...], tuple[Skipped, ...]]:
    groups, skipped = find_groups(traced)
    return tuple(group for group in groups if group.kind in settings.kinds), skipped


def _round(task: Task, thinned: Thinned, settings: "Prune", aim: _Aim) -> Thinned:
    model, dropped = _without_blocks(task, thinned, settings, aim)
    keep = _chosen(task, replace(thinned, model=model), settings, aim)
    shrunk = try_shrink(model, keep)
    model = shrunk.model
    sizes = thinned.sizes | {name: len(units) for name, units in shrunk.kept.items()}
    record: dict[str, Any] = {"what": "round", "number": len(thinned.rounds) + 1, "macs": macs_of(model, {})}
    interrupted = False
    if settings.recover and (keep or dropped != thinned.dropped):
        recovered = recover(task, model, epochs=settings.recover, seed=settings.seed + len(thinned.rounds))
        assert isinstance(recovered.model, TracedModel)
        model, interrupted = recovered.model, recovered.interrupted
        record |= {"before": recovered.before.metric, "after": recovered.after.metric, "epochs": recovered.epochs}
    left = (*thinned.left, *shrunk.skipped)
    return Thinned(model, sizes, left, dropped, (*thinned.rounds, record), interrupted)


def _chosen(task: Task, thinned: Thinned, settings: "Prune", aim: _Aim) -> Keep:
    """Return the units that stay of the groups that lose some in this round."""
    model, seed = thinned.model, settings.seed + len(thinned.rounds)
    groups = tuple(group for group in _cuttable(model, settings)[0] if group.name in thinned.sizes)
    if not groups:
        return {}
    saliency = unit_saliency(task, model, groups, settings.saliency, seed=seed)
    steps = {group.name: step_of(group, settings.multiple) for group in groups}
    gains = {group.name: 1.0 for group in groups}
    if aim.macs is not None:
        whole = macs_of(model, {})
        gains = {group.name: _gain(model, group, whole) for group in groups}
    pieces = [slices_of(group.name, saliency[group.name], steps[group.name], gains[group.name]) for group in groups]
    if aim.macs is not None:
        return _within(model, groups, pieces, aim.macs, last=settings.max_macs)
    if settings.scope == "layer":
        wanted = [round(aim.share * aim.sizes[group.name]) - aim.gone(thinned, group.name) for group in groups]
        chosen = [piece for own, units in zip(pieces, wanted, strict=True) for piece in by_count(own, units)]
    else:
        gone = sum(aim.gone(thinned, name) for name in thinned.sizes)
        chosen = by_count(in_order(pieces), round(aim.share * sum(aim.sizes.values())) - gone)
    return kept(groups, chosen)


def _within(
    model: TracedModel, groups: Sequence[Group], pieces: list[list[Slice]], limit: float, *, last: int | None
) -> Keep:
    ordered = in_order(pieces)
    chosen = by_macs(ordered, limit, lambda gone: macs_of(model, kept(groups, gone)))
    if chosen is None:
        least = macs_of(model, kept(groups, ordered))
        raise InputError(
            f"max_macs={last:,} cannot be reached: with every layer at its narrowest the model still takes {least:,} "
            "multiply-accumulates a row. Ask for more, give a smaller multiple=, or add more kinds=."
        )
    return kept(groups, chosen)


def _gain(model: TracedModel, group: Group, whole: int) -> float:
    """Return the multiply-accumulates that one unit's removal saves, all else being whole."""
    return float(whole - macs_of(model, {group.name: range(1, len(group.units))}))


def _without_blocks(
    task: Task, thinned: Thinned, settings: "Prune", aim: _Aim
) -> tuple[TracedModel, tuple[str, ...]]:
    """Drop blocks, those whose absence changes the loss least."""
    blocks = find_blocks(thinned.model) if "blocks" in settings.kinds else ()
    if not blocks:
        return thinned.model, thinned.dropped
    costs = _block_costs(task, thinned, settings, blocks)
    if aim.macs is not None:
        gone = _blocks_within(task, thinned.model, settings, aim.macs, dict(zip(blocks, costs, strict=True)))
    else:
        count = max(0, aim.blocks - len(thinned.dropped))
        gone = [block for _, block in sorted(zip(costs, blocks, strict=True), key=lambda pair: pair[0])[:count]]
    if not gone:
        return thinned.model, thinned.dropped
    return without_blocks(thinned.model, gone), (*thinned.dropped, *(block.name for block in gone))


def _block_costs(task: Task, thinned: Thinned, settings: "Prune", blocks: Sequence[Block]) -> list[float]:
    seed = settings.seed + len(thinned.rounds)
    if settings.saliency == "random":
        drawn: list[float] = torch.rand(len(blocks), generator=torch.Generator().manual_seed(seed)).tolist()
        return drawn
    pieces = list(calibration_pieces(task, seed=seed, rows=BLOCK_ROWS))
    costs = block_saliency(task, thinned.model, blocks, pieces)
    scale = 1.0 if settings.saliency in ABSOLUTE else sum(costs) / len(costs)
    return [cost / scale if scale else cost for cost in costs]


def _blocks_within(
    task: Task, model: TracedModel, settings: "Prune", limit: float, costs: dict[Block, float]
) -> list[Block]:
    """Return the blocks that go when blocks and units together are cut down to a limit, cheapest first for each MAC."""
    whole = macs_of(model, {})
    named = {block.name: block for block in costs}
    own = [
        [Slice(block.name, (), cost / max(whole - macs_of(without_blocks(model, [block]), {}), 1))]
        for block, cost in costs.items()
    ]
    groups, _ = _cuttable(model, settings)
    saliency = unit_saliency(task, model, groups, settings.saliency, seed=settings.seed) if groups else {}
    pieces = [
        slices_of(group.name, saliency[group.name], step_of(group, settings.multiple), _gain(model, group, whole))
        for group in groups
    ]

    def macs_after(gone: Sequence[Slice]) -> int:
        shorter = without_blocks(model, [named[piece.group] for piece in gone if not piece.units])
        there = {group.name: len(group.units) for group in find_groups(shorter)[0]}
        keep = kept(groups, [piece for piece in gone if piece.units])
        sizes = {group.name: len(group.units) for group in groups}
        return macs_of(shorter, {name: units for name, units in keep.items() if there.get(name) == sizes[name]})

    ordered = in_order([*own, *pieces])
    chosen = by_macs(ordered, limit, macs_after)
    return [named[piece.group] for piece in (ordered if chosen is None else chosen) if not piece.units]


def _records(groups: Sequence[Group], thinned: Thinned, macs: int) -> list[dict[str, Any]]:
    """Return what was done, in plain values."""
    done: list[dict[str, Any]] = [
        {
            "what": "group",
            "name": group.name,
            "kind": group.kind,
            "units_before": len(group.units),
            "units_after": thinned.sizes[group.name],
            "layers": list(group.layers),
        }
        for group in groups
        if thinned.sizes[group.name] < len(group.units)
    ]
    done += [{"what": "block", "name": name} for name in thinned.dropped]
    if done:
        done.append({"what": "model", "macs_before": macs, "macs_after": macs_of(thinned.model, {})})
    return [*done, *thinned.rounds]
