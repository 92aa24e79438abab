"""Single weights pruned: masks by saliency, in rounds with recovery between them, and stored as sparse weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flyweight.distillation.recover import recover
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, tensor_of
from flyweight.pruning.calibration import first_inputs
from flyweight.pruning.masks import (
    Masks,
    density,
    free_masks,
    keep_masks,
    pattern_masks,
    prunable_weights,
    with_masks,
)
from flyweight.pruning.schedule import cubic_ratios
from flyweight.pruning.sparse_packing import pack_weight, with_dense_weights, with_sparse_weights
from flyweight.pruning.weight_saliency import weight_saliency
from flyweight.task.change import Change, Skipped
from flyweight.task.task import Task

if TYPE_CHECKING:
    from flyweight.pruning.prune import Prune

#: Said of every sparse model, because its users will expect otherwise.
NO_FASTER = (
    "no engine here multiplies faster by a weight with zeros: the file is smaller, the time of a call is the same; "
    "structured=True makes layers thinner and calls faster"
)


@dataclass(frozen=True, eq=False)
class Sparse:
    """A model under way.

    Args:
        model: with zeros in dense weights.
        masks: by the weights' names.
        left: why weights have no mask.
        rounds: what each round left, and how the model stood before and after its recovery.
        interrupted: whether the user stopped a recovery.
    """

    model: TracedModel
    masks: Masks
    left: Mapping[str, str]
    rounds: tuple[dict[str, Any], ...] = ()
    interrupted: bool = False


def prune_weights(task: Task, settings: "Prune") -> Change:
    """Take single weights away; see `Prune` with `structured=False`."""
    traced = with_dense_weights(trace(task.model, first_inputs(task)))
    sparse = _pruned(task, traced, settings)
    if not sparse.masks:
        left = tuple(Skipped(name, why, settings.name) for name, why in sparse.left.items())
        nothing = Skipped("the model", "it has no linear or convolution weight that could be pruned", settings.name)
        return Change(settings.name, task.model, settings.recipe(), (), left or (nothing,))
    packed = {name: pack_weight(tensor_of(sparse.model.body, name)) for name in sparse.masks}
    stored = {name: module for name, module in packed.items() if module is not None}
    done: list[dict[str, Any]] = []
    skipped = [Skipped("latency", NO_FASTER, settings.name)]
    skipped += [Skipped(name, why, settings.name) for name, why in sparse.left.items()]
    for name, mask in sparse.masks.items():
        module = packed[name]
        if module is None:
            skipped.append(Skipped(name, "it has zeros, but storing their places would take more bytes", settings.name))
        size = 4 * mask.numel()
        sizes = {"bytes_before": size, "bytes_after": size if module is None else module.bytes()}
        done.append({"what": "weights", "name": name, "kept": int(mask.sum()), "of": mask.numel(), **sizes})
    done += sparse.rounds
    model = with_sparse_weights(sparse.model, stored)
    return Change(
        settings.name, model, settings.recipe(), tuple(done), tuple(skipped), interrupted=sparse.interrupted
    )


def _pruned(task: Task, traced: TracedModel, settings: "Prune") -> Sparse:
    """Run the rounds. What is gone stays gone: a weight of 0 has the saliency 0."""
    names = prunable_weights(traced)
    sparse = Sparse(traced, {}, {})
    if not names:
        return sparse
    ratios = [None] if settings.pattern else cubic_ratios(settings.ratio or 0.0, settings.rounds)
    for number, ratio in enumerate(ratios):
        scores = weight_saliency(task, sparse.model, names, settings.saliency, seed=settings.seed + number)
        if ratio is None:
            assert settings.pattern is not None
            masks, left = pattern_masks(scores, settings.pattern)
        else:
            masks, left = free_masks(scores, ratio, scope=settings.scope), {}
        sparse = _round(task, with_masks(sparse.model, masks), masks, left, settings, sparse.rounds)
        if sparse.interrupted:
            break
    return sparse


def _round(
    task: Task,
    model: TracedModel,
    masks: Masks,
    left: Mapping[str, str],
    settings: "Prune",
    rounds: tuple[dict[str, Any], ...],
) -> Sparse:
    record: dict[str, Any] = {"what": "round", "number": len(rounds) + 1, "density": density(masks)}
    if not settings.recover or not masks:
        return Sparse(model, masks, left, (*rounds, record))
    recovered = recover(
        task, model, epochs=settings.recover, seed=settings.seed + len(rounds), after_step=keep_masks(masks)
    )
    assert isinstance(recovered.model, TracedModel)
    record |= {"before": recovered.before.metric, "after": recovered.after.metric, "epochs": recovered.epochs}
    return Sparse(recovered.model, masks, left, (*rounds, record), recovered.interrupted)
