"""Precisions of layers that are given instead of chosen, and reading them off a change."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import get_args

from flyweight.errors import InputError
from flyweight.quantization.insert import Precision
from flyweight.quantization.sites import STEP, Site
from flyweight.task.change import Change, Skipped

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def precisions_of(change: Change) -> dict[str, Precision]:
    """Return the precision of each layer that a quantisation rounded, or weighed and left in float32.

    Example:
        >>> precisions_of(Quantize().apply(task))  # doctest: +SKIP
        {'mlp.0': 'int8', 'mlp.2': 'float32'}
    """
    if change.step != STEP:
        return {}
    rounded = {str(done["name"]): done["to"] for done in change.done if done["what"] == "layer"}
    weighed = [str(done["name"]) for done in change.done if done["what"] == "sensitivity"]
    return {**dict.fromkeys(weighed, "float32"), **rounded}


def rounds_activations(change: Change) -> bool:
    """Return whether a quantisation rounds what any layer reads; else it stores weights in fewer bits alone."""
    return any(done["activations"] != "float32" for done in change.done if done["what"] == "layer")


def check_precisions(precisions: object) -> dict[str, Precision]:
    """Return a copy of precisions by layer.

    Raises:
        InputError: they are no precisions by name.
    """
    if not isinstance(precisions, Mapping) or not precisions:
        raise InputError(
            f'Quantize precisions must map names of layers to precisions, as in {{"mlp.0": "int8"}}; seen '
            f"{precisions!r}."
        )
    for name, precision in precisions.items():
        if precision not in PRECISIONS:
            known = ", ".join(map(repr, PRECISIONS))
            raise InputError(f"Quantize precision of layer {name!r} must be one of {known}; seen {precision!r}.")
    return {str(name): precision for name, precision in precisions.items()}


def fitting_precisions(
    precisions: Mapping[str, Precision], sites: Sequence[Site], skipped: Sequence[Skipped]
) -> dict[str, Precision]:
    """Return the precision of every layer, float32 for those that are not named.

    Args:
        precisions: by the name of a layer ("mlp.0") or of its weight ("mlp.0.weight").
        sites: the layers that can be quantised.
        skipped: those that cannot, and why.

    Raises:
        InputError: there is no such layer.
    """
    given: dict[str, Precision] = {site.name: "float32" for site in sites}
    reasons = {one.what: one.why for one in skipped}
    for name, precision in precisions.items():
        layer = name.removesuffix(".weight")
        if layer in reasons and layer not in given:
            raise InputError(f"Layer {name!r} cannot be quantised: {reasons[layer]}. Take it out of precisions=.")
        if layer not in given:
            near = get_close_matches(layer, given, 1, 0.0)
            hint = f"the nearest is {near[0]!r}" if near else "the model has none that can be quantised"
            raise InputError(f"There is no layer {name!r}; {hint}.")
        given[layer] = precision
    return given
