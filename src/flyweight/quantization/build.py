"""One quantised model: branches balanced, ranges smoothed, quantisers put in, biases corrected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.quantization.balance import balance
from flyweight.quantization.bias_correction import correct_biases
from flyweight.quantization.insert import Precision, Rounding, insert, placements, runs_in_integers
from flyweight.quantization.observe import Inputs, observe
from flyweight.quantization.record import layer_records
from flyweight.quantization.sites import Site, channels_read, find_sites
from flyweight.quantization.smooth import smooth
from flyweight.task.change import Skipped


@dataclass(frozen=True)
class Mending:
    """What is done about the error of rounding, without training.

    Args:
        balance: whether branches of a concatenation are brought to one size.
        smooth: how much of the difficulty goes from activations to weights, 0 to 1; None is no smoothing.
        bias_correction: whether the expected error of each output is taken off its bias.
    """

    balance: bool = True
    smooth: float | None = None
    bias_correction: bool = True


@dataclass(frozen=True, eq=False)
class Built:
    """A quantised model.

    Args:
        model: to be trained, evaluated and exported.
        done: a record for each layer, and for what was mended.
        skipped: what was left of the mending.
    """

    model: TracedModel
    done: tuple[dict[str, Any], ...]
    skipped: tuple[Skipped, ...]


def build(
    traced: TracedModel,
    precision: Mapping[str, Precision],
    rounding: Rounding,
    mending: Mending,
    rows: Sequence[Inputs],
) -> Built:
    """Quantise a traced model to a precision for each layer.

    Args:
        traced: batch norm folded; left as it was.
        precision: of each layer by name; a layer that is not named stays float32.
        rows: calibration inputs.
    """
    copied = trace(traced, {})
    done: list[dict[str, Any]] = []
    skipped: list[Skipped] = []
    integer = _integer(copied, precision, rounding)
    if mending.balance and integer:
        done += balance(copied, integer, rows, rounding.ranges)
        integer = _integer(copied, precision, rounding)
    if mending.smooth is not None and integer:
        smoothed, left = smooth(copied, integer, rows, mending.smooth)
        done, skipped = done + smoothed, skipped + left
    sites = find_sites(copied)[0]
    chosen = [site for site in sites if precision.get(site.name, "float32") != "float32"]
    wanted: dict[str, int | None] = dict.fromkeys(one.node for one in placements(copied, integer, rounding))
    if mending.bias_correction:
        wanted |= {site.input: channels_read(site) for site in chosen}
    seen = observe(copied, rows, wanted) if wanted else {}
    model = insert(copied, sites, precision, rounding, seen)
    records = layer_records(copied, model, sites, precision, rounding)
    if mending.bias_correction:
        means = {site.name: seen[site.input].mean for site in chosen if site.input in seen}
        corrected = correct_biases(model, chosen, means)
        records = [record | {"bias_corrected": record["name"] in corrected} for record in records]
    return Built(model, (*records, *done), tuple(skipped))


def _integer(traced: TracedModel, precision: Mapping[str, Precision], rounding: Rounding) -> list[Site]:
    """Return the layers that will run in integers, as the graph stands now."""
    sites = find_sites(traced)[0]
    return [site for site in sites if runs_in_integers(precision.get(site.name, "float32"), rounding)]
