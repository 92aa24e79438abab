"""Ranks that are given instead of chosen: checked in themselves, and against the layers that they are for."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from flyweight.errors import InputError
from flyweight.pruning.ranks import Split
from flyweight.task.change import Skipped


def check_ranks(ranks: object) -> dict[str, int]:
    """Return a copy of ranks by layer.

    Raises:
        InputError: they are no whole numbers above 0 by name.
    """
    if not isinstance(ranks, Mapping) or not ranks:
        raise InputError(f'Factorize ranks must map names of layers to ranks, as in {{"mlp.0": 8}}; seen {ranks!r}.')
    for name, rank in ranks.items():
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise InputError(f"Factorize rank of layer {name!r} must be a whole number of at least 1; seen {rank!r}.")
    return {str(name): rank for name, rank in ranks.items()}


def fitting_ranks(
    ranks: Mapping[str, int], splits: Mapping[str, Split], skipped: Sequence[Skipped]
) -> dict[str, int | None]:
    """Return the rank of each layer by its name, None for one that is not named.

    Args:
        ranks: by the name of a layer ("mlp.0") or of its weight ("mlp.0.weight").
        splits: of the layers that can be split.
        skipped: layers that cannot, and why.

    Raises:
        InputError: there is no such layer, or it would take no fewer multiply-accumulates.
    """
    given: dict[str, int | None] = dict.fromkeys(splits)
    reasons = {one.what: one.why for one in skipped}
    for name, rank in ranks.items():
        layer = name.removesuffix(".weight")
        if layer in reasons and layer not in splits:
            raise InputError(f"Layer {name!r} cannot be split: {reasons[layer]}. Take it out of ranks=.")
        if layer not in splits:
            near = get_close_matches(layer, splits, 1, 0.0)
            hint = f"the nearest is {near[0]!r}" if near else "the model has none"
            raise InputError(f"There is no linear layer {name!r}; {hint}.")
        split = splits[layer]
        if split.cost(rank) >= split.full:
            most = (split.full - 1) // split.cost(1)
            advice = f"give at most {most}" if most else "take it out of ranks="
            raise InputError(
                f"Layer {name!r} takes {split.full:,} multiply-accumulates as it is and {split.cost(rank):,} at rank "
                f"{rank}; {advice}."
            )
        given[layer] = rank
    return given
