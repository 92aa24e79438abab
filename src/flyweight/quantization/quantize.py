"""The step that stores weights in fewer bits and runs layers in integers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from flyweight.distillation.losses import default_distill_loss
from flyweight.errors import InputError
from flyweight.graph.fold_batch_norm import fold_batch_norm
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.quantization.build import Built, Mending, build
from flyweight.quantization.dynamic import make_dynamic
from flyweight.quantization.given_precisions import check_precisions, fitting_precisions
from flyweight.quantization.insert import Precision, Rounding
from flyweight.quantization.measured import served_inputs
from flyweight.quantization.mixed import Choice, Mixed, by_sensitivity, by_time
from flyweight.quantization.observe import Inputs, calibration
from flyweight.quantization.sites import STEP, Site, find_sites
from flyweight.task.change import Change, Skipped
from flyweight.task.progress import stage
from flyweight.task.scores import evaluating
from flyweight.task.task import Task

RANGES = ("mse", "minmax", "percentile")


@dataclass(frozen=True)
class Quantize:
    """Store weights in fewer bits, and run layers in integers.

    Args:
        weights: what weights are stored as, at the least: "int8", "int4" by group, "bfloat16", or "float32".
        activations: "int8" rounds what int8 layers read, so that they run in integers; None stores weights only.
        ranges: "mse" has the least squared error; or "minmax", "percentile".
        per_channel: a scale for each output channel of a weight.
        symmetric: weights without a zero point.
        group_size: neighbours of an int4 weight that share a scale; must divide the inputs of every layer.
        dynamic: linear layers round what they read by its range in each call; nothing is calibrated.
        smooth: how much of the difficulty of rounding goes from activations to weights, 0 to 1; None leaves it.
        bias_correction: take the expected error of each output off its bias.
        mixed: choose each layer's precision, by what rounding it costs the output and by timing whole models. Without,
            all layers get what `weights` says.
        max_error: with `mixed`, layers are raised in precision until the mean squared errors that they make in the
            output add up to at most so many of its variances.
        recover: epochs of training with the rounding in place.
        force: with `mixed`, round the model also where it is faster as it was.
        calibration_rows: training rows whose activations are looked at.
        seed: draws them.
        precisions: the precision of each layer by its name ("mlp.0"), as `precisions_of` reads them off a change;
            others stay float32. Nothing is then chosen: `weights`, `mixed` and `max_error` do not count.

    Raises:
        InputError: a setting is none of these.

    Example:
        >>> Quantize(weights="int8").name
        'quantize'
    """

    weights: Precision = "int8"
    activations: Literal["int8"] | None = "int8"
    ranges: Literal["mse", "minmax", "percentile"] = "mse"
    per_channel: bool = True
    symmetric: bool = True
    group_size: int = 32
    dynamic: bool = False
    smooth: float | None = None
    bias_correction: bool = True
    mixed: bool = True
    max_error: float = 0.01
    recover: float = 0.0
    force: bool = False
    calibration_rows: int = 2_048
    seed: int = 0
    precisions: Mapping[str, Precision] | None = None

    def __post_init__(self) -> None:
        _one_of("weights", self.weights, get_args(Precision))
        _one_of("activations", self.activations, ("int8", None))
        _one_of("ranges", self.ranges, RANGES)
        _share("smooth", self.smooth if self.smooth is not None else 0.5, 0.0, 1.0)
        _share("max_error", self.max_error, 0.0, 1.0)
        _share("recover", self.recover, 0.0, float("inf"))
        if self.dynamic and (self.weights != "int8" or self.activations is None or self.recover):
            raise InputError(
                "Quantize dynamic=True needs weights='int8' and activations='int8', and learns nothing; seen "
                f"weights={self.weights!r}, activations={self.activations!r}, recover={self.recover}."
            )
        if self.precisions is not None:
            if self.dynamic:
                raise InputError("Quantize dynamic=True ranges every linear layer in each call; leave precisions= out.")
            object.__setattr__(self, "precisions", check_precisions(self.precisions))
        _whole("group_size", self.group_size, 2)
        _whole("calibration_rows", self.calibration_rows, 1)

    @property
    def name(self) -> str:
        """The step's name in recipes and reports."""
        return STEP

    @property
    def rounding(self) -> Rounding:
        """How numbers are rounded."""
        return Rounding(
            ranges=self.ranges,
            per_channel=self.per_channel,
            symmetric=self.symmetric,
            group_size=self.group_size,
            activations=self.activations is not None,
        )

    @property
    def mending(self) -> Mending:
        """What is done about the error of rounding, without training."""
        return Mending(smooth=self.smooth, bias_correction=self.bias_correction)

    def apply(self, task: Task) -> Change:
        """Return the task's model quantised, and what was done and left.

        Raises:
            InputError: groups of int4 weights do not divide a layer's inputs; an activation is not finite;
                `precisions` names no layer of the model.
            ExportError: the model cannot be traced; names the line.
        """
        return quantize(task, self)


def quantize(task: Task, settings: Quantize) -> Change:
    """Quantise the layers of a task's model; see `Quantize`."""
    recipe = {name: value for name, value in asdict(settings).items() if value is not None}
    if settings.precisions is not None:
        recipe = {name: value for name, value in recipe.items() if name not in ("weights", "mixed", "max_error")}
    rows = calibration(task, settings.calibration_rows, settings.seed)
    traced = fold_batch_norm(trace(task.model, _few(rows[0])))
    sites, skipped = find_sites(traced)
    wanted: Choice = {site.name: settings.weights for site in sites}
    if settings.precisions is not None:
        wanted = fitting_precisions(settings.precisions, sites, skipped)
    if set(wanted.values()) <= {"float32"}:
        why = "it has no layer with a weight of its own to quantise" if not sites else "its weights are to stay float32"
        return Change(STEP, task.model, recipe, (), (*skipped, Skipped("the model", why, STEP)))
    _check_groups(traced, sites, wanted, settings)
    mixed = _chosen(task, settings, traced, sites, rows, wanted)
    skipped = (*skipped, *mixed.skipped)
    if mixed.built is None or set(mixed.precision.values()) == {"float32"}:
        return Change(STEP, task.model, recipe, mixed.done, skipped)
    model, done, interrupted = mixed.built.model, (*mixed.built.done, *mixed.done), False
    skipped = (*skipped, *mixed.built.skipped)
    if settings.recover:
        model, learned, interrupted = _recovered(task, model, settings)
        done = (*done, learned)
    broken = _not_finite(model, rows)
    if broken:
        why = f"{broken}; the step was taken back and the model is as it was"
        return Change(STEP, task.model, recipe, (), (*skipped, Skipped("the model", why, STEP)))
    return Change(STEP, model, recipe, done, skipped, interrupted=interrupted)


def _chosen(
    task: Task, settings: Quantize, traced: TracedModel, sites: tuple[Site, ...], rows: list[Inputs], wanted: Choice
) -> Mixed:
    """Return the precision of each layer and the model of it: as `wanted`, or with some layers raised from there."""
    start, rounding, mending = settings.weights, settings.rounding, settings.mending
    if settings.dynamic:
        with stage("Rounding weights", seconds=2.0):
            made, records, left = make_dynamic(traced, sites, rounding)
        names = {record["name"] for record in records}
        return Mixed(
            {site.name: "int8" if site.name in names else "float32" for site in sites},
            Built(made, tuple(records), ()) if records else None,
            (),
            tuple(left),
        )
    make = partial(_build, traced, rounding, mending, rows)
    if not settings.mixed or start == "bfloat16" or settings.precisions is not None:
        with stage("Finding ranges", seconds=1.0 * len(sites)):
            return Mixed(wanted, make(wanted), (), ())
    with stage("Rounding one layer at a time", seconds=2.0 * len(sites)):
        plain = partial(_build, traced, rounding, replace(mending, bias_correction=False), rows)
        chosen, records = by_sensitivity(traced, sites, start, plain, rows, settings.max_error)
    with stage("Timing which layers pay in integers", seconds=15.0):
        alone = partial(_build, traced, replace(rounding, activations=False), replace(mending, balance=False), rows)
        mixed = by_time(
            traced,
            sites,
            chosen,
            make,
            served_inputs(task, traced),
            make_weights_only=alone if rounding.activations and start == "int8" else None,
            force=settings.force,
        )
    return replace(mixed, done=(*records, *mixed.done))


def _build(traced: TracedModel, rounding: Rounding, mending: Mending, rows: list[Inputs], choice: Choice) -> Built:
    return build(traced, choice, rounding, mending, rows)


def _recovered(task: Task, model: TracedModel, settings: Quantize) -> tuple[TracedModel, dict[str, Any], bool]:
    """Return the model after recovery, what recovery did, and whether it was interrupted."""
    from flyweight.quantization.learning import learn

    found = learn(task, model, epochs=settings.recover, seed=settings.seed)
    assert isinstance(found.model, TracedModel)
    record = {
        "what": "training",
        "parameters": found.parameters,
        "epochs": found.epochs,
        "lr": found.lr,
        "seconds": round(found.seconds, 1),
        "loss": default_distill_loss(task.output or "logit"),
        "metric": task.spec.name,
        "validation_before": found.before.metric,
        "validation_after": found.after.metric,
        "notes": list(found.notes),
    }
    return found.model, record, found.interrupted


def _one_of(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise InputError(f"Quantize {name} must be one of {', '.join(map(repr, known))}; seen {value!r}.")


def _share(name: str, value: float, least: float, most: float) -> None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most
    if not known or value == float("inf"):
        words = f"from {least:g} to {most:g}" if most < float("inf") else f"of at least {least:g}"
        raise InputError(f"Quantize {name} must be a number {words}; seen {value!r}.")


def _whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"Quantize {name} must be a whole number of at least {least}; seen {value!r}.")


def _few(inputs: Inputs, rows: int = 64) -> Inputs:
    """Return the first rows of a batch; the whole where its inputs have different lengths (flat ids of bags)."""
    lengths = {len(value) for value in inputs.values()}
    return inputs if len(lengths) > 1 else {name: value[:rows] for name, value in inputs.items()}


def _check_groups(
    traced: TracedModel, sites: tuple[Site, ...], precision: Mapping[str, Precision], settings: Quantize
) -> None:
    """Refuse groups that do not divide before any work is done, and say which would."""
    grouped = [site for site in sites if precision[site.name] == "int4" and site.tensor(traced).ndim == 2]
    sizes = {site.name: site.tensor(traced).shape[site.in_axis] for site in grouped}
    wrong = {name: size for name, size in sizes.items() if size % settings.group_size}
    if wrong:
        name, size = next(iter(wrong.items()))
        fits = [one for one in range(2, settings.group_size) if not any(every % one for every in sizes.values())]
        other = 'weights="int8"' if settings.precisions is None else f'"int8" for {name!r}'
        hint = f"group_size={fits[-1]} divides those of every layer" if fits else f"take {other}"
        raise InputError(
            f"Layer {name!r} has {size} inputs; groups of group_size={settings.group_size} do not divide them "
            f"({size} = {size // settings.group_size} * {settings.group_size} + {size % settings.group_size}): {hint}."
        )


def _not_finite(model: TracedModel, rows: list[Inputs]) -> str:
    """Return in words what is not finite in a quantised model, or nothing."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"{name.removeprefix('body.')} holds NaN or infinite values"
    with evaluating(model), torch.no_grad():
        outputs: Tensor = model(**rows[0])
    bad = int((~torch.isfinite(outputs)).sum())
    return f"{bad:,} of {outputs.numel():,} outputs are NaN or infinite" if bad else ""
