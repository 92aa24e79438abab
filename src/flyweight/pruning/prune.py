"""The step that prunes: whole neurons, channels, heads and blocks, or single weights."""

from dataclasses import asdict, dataclass
from typing import Any

from flyweight.errors import InputError
from flyweight.pruning.masks import parse_pattern
from flyweight.pruning.saliency import check_saliency
from flyweight.pruning.structured import prune_units
from flyweight.pruning.unstructured import prune_weights
from flyweight.task.change import Change
from flyweight.task.task import Task

STEP = "prune"
SCOPES = ("global", "layer")
KINDS = ("neurons", "channels", "heads", "embedding", "blocks")


@dataclass(frozen=True)
class Prune:
    """Take away what a model needs least, and make it physically smaller.

    Give exactly one target: `ratio` or `max_macs`, or without `structured` a `pattern`.

    Args:
        ratio: the share that goes, in (0, 1): of all units (structured) or of all weights (not structured). 0.5 with
            scope "layer" halves every layer, with "global" those go that matter least wherever they are.
        max_macs: multiply-accumulates of one row that may be left; units go by saliency for each multiply-accumulate.
        saliency: "taylor", "fisher", "magnitude", "activation" or "random"; see `pruning.saliency`.
        structured: whole units go, so that layers get thinner and calls faster; else single weights, which makes the
            file smaller and no call faster.
        scope: "global" ranks the units of all layers together, "layer" takes the same share of each.
        multiple: widths land on multiples of this, and no layer gets narrower; None takes 16, as engines like it, or
            half of what is narrower than 32.
        rounds: in how many goes, saliency measured anew in each.
        recover: epochs of learning from the original model after each round; 0 for none.
        kinds: which kinds of units may go: "neurons", "channels", "heads", "embedding" (dimensions of tables and of
            the residual stream) and "blocks" (whole branches of a residual stream).
        pattern: "2:4" keeps 2 of every 4 neighbours in a row; without `structured` only.
        seed: of the calibration rows and of recovery.
        force: keep the result even if it is slower.

    Raises:
        InputError: not exactly one target, or a setting makes no sense.

    Example:
        >>> Prune(ratio=0.5).name
        'prune'
    """

    ratio: float | None = None
    max_macs: int | None = None
    saliency: str = "taylor"
    structured: bool = True
    scope: str = "global"
    multiple: int | None = None
    rounds: int = 1
    recover: float = 0.0
    kinds: tuple[str, ...] = ("neurons", "channels", "heads", "embedding")
    pattern: str | None = None
    seed: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        _check_target(self)
        check_saliency(self.saliency)
        if self.scope not in SCOPES:
            raise InputError(f'Prune scope must be "global" or "layer"; seen {self.scope!r}.')
        _check_count("rounds", self.rounds)
        if self.multiple is not None:
            _check_count("multiple", self.multiple)
        if not _is_number(self.recover) or not 0 <= self.recover < float("inf"):
            raise InputError(f"Prune recover must be a number of epochs, 0 for none; seen {self.recover!r}.")
        object.__setattr__(self, "kinds", _checked_kinds(self.kinds))

    @property
    def name(self) -> str:
        """The step's name in recipes and reports."""
        return STEP

    def recipe(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        settings = {name: value for name, value in asdict(self).items() if value is not None}
        return {**settings, "kinds": list(self.kinds)}

    def apply(self, task: Task) -> Change:
        """Return the task's model with units or weights taken away, and what was done and left.

        Interrupted (Ctrl-C) in a recovery, it returns the best so far, marked `interrupted`.

        Raises:
            ExportError: the model cannot be traced; names the line.
            InputError: the saliency needs a loss that cannot be computed, or `max_macs` cannot be reached.
        """
        return prune_units(task, self) if self.structured else prune_weights(task, self)


def _check_target(settings: Prune) -> None:
    targets = {"ratio": settings.ratio, "max_macs": settings.max_macs}
    if settings.pattern is not None:
        parse_pattern(settings.pattern)
        if settings.structured:
            raise InputError("Prune pattern= is for single weights; add structured=False, or leave pattern out.")
        targets["pattern"] = settings.pattern  # type: ignore[assignment]
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) != 1:
        seen = ", ".join(f"{name}={value}" for name, value in given.items()) or "none"
        known = "ratio= and max_macs=" if settings.structured else "ratio= and pattern="
        raise InputError(f"Prune takes exactly one of {known}; seen {seen}.")
    if settings.max_macs is not None:
        if not settings.structured:
            raise InputError(
                "Prune max_macs= needs structured=True: zeros among the weights take no multiply-accumulate away."
            )
        _check_count("max_macs", settings.max_macs)
    if settings.ratio is not None and (not _is_number(settings.ratio) or not 0 < settings.ratio < 1):
        raise InputError(
            f"Prune ratio must lie between 0 and 1, both excluded: the share that goes; seen {settings.ratio!r}. "
            "To remove nine tenths, give ratio=0.9."
        )


def _checked_kinds(kinds: object) -> tuple[str, ...]:
    if isinstance(kinds, str) or not isinstance(kinds, (tuple, list)) or not kinds:
        raise InputError(f"Prune kinds must be a tuple of some of {', '.join(KINDS)}; seen {kinds!r}.")
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"Prune kind {kind!r} is unknown; use some of {', '.join(KINDS)}.")
    return tuple(kinds)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"Prune {name} must be a whole number of at least 1; seen {value!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
