"""A recipe: steps that can be written to TOML, read, edited, and run again to the same bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from flyweight.bundle.strict_json import one_line
from flyweight.distillation.distill import Distill
from flyweight.errors import InputError
from flyweight.planning.setting_kinds import NONE, built, shown
from flyweight.planning.toml_text import read_toml, toml_of
from flyweight.pruning.drop_fields import DropFields
from flyweight.pruning.factorize import Factorize
from flyweight.pruning.prune import Prune
from flyweight.pruning.share_weights import ShareWeights
from flyweight.quantization.quantize import Quantize
from flyweight.tables.coded_teacher import CodedTeacher
from flyweight.tables.encode_tables import EncodeTables
from flyweight.task.step import Step

#: Name in recipes -> step, in the order in which they are mostly taken.
STEPS: dict[str, type[Any]] = {
    "encode_tables": EncodeTables,
    "coded_teacher": CodedTeacher,
    "drop_fields": DropFields,
    "prune": Prune,
    "distill": Distill,
    "factorize": Factorize,
    "share_weights": ShareWeights,
    "quantize": Quantize,
}


@dataclass(frozen=True)
class Recipe:
    """What is done to a model, in order.

    Args:
        steps: as `compress` takes them.
        rewrite: whether what a request repeats is then computed once: True and False say so, None lets the clock
            decide.
    """

    steps: tuple[Step, ...]
    rewrite: bool | None = None


def write_recipe(
    path: str | Path, steps: Sequence[Step], *, rewrite: bool | None = None, notes: Sequence[str] = ()
) -> Path:
    """Write steps as TOML and return the path; a file that is there is replaced.

    Args:
        rewrite: see `Recipe`.
        notes: lines for the reader, written as comments.

    Raises:
        InputError: a step cannot be written (it is of one's own, or has a module as a setting), or the path cannot.

    Example:
        >>> write_recipe("small.toml", [Prune(ratio=0.5)])  # doctest: +SKIP
        PosixPath('small.toml')
    """
    target = Path(path)
    document: dict[str, Any] = {} if rewrite is None else {"rewrite": rewrite}
    document["steps"] = [to_plain(step) for step in steps]
    lines = [f"Run it again: flyweight compress TASK --steps {target.name}", *notes]
    comment = "".join(f"# {one_line(line, 500)}\n" for note in lines for line in note.splitlines() or [""])
    try:
        text = comment + "\n" + toml_of(document)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"The recipe cannot be written to {target}: {error.strerror}; choose another path.") from error
    except ValueError as error:
        raise InputError(f"The recipe cannot be written as TOML: {one_line(error)}.") from error
    return target


def read_recipe(path: str | Path) -> Recipe:
    """Return the recipe in a file, which need not be trusted: it names steps and numbers, and nothing in it is run.

    Raises:
        InputError: naming the file, the step and the key; for an unknown one the nearest known.

    Example:
        >>> compress(task, steps=read_recipe("small.toml"))  # doctest: +SKIP
    """
    where = Path(path)
    document = read_toml(where)
    for name in document:
        if name not in ("rewrite", "steps"):
            near = get_close_matches(name, ("rewrite", "steps"), 1, 0.0)[0]
            raise InputError(f"{where}: {one_line(repr(name), 80)} is unknown; the nearest known is {near!r}.")
    rewrite, steps = document.get("rewrite"), document.get("steps")
    if rewrite is not None and not isinstance(rewrite, bool):
        raise InputError(f"{where}: rewrite must be true or false; seen {shown(rewrite)}.")
    if not isinstance(steps, list):
        seen = "nothing" if steps is None else shown(steps)
        raise InputError(f"{where}: steps must be a list, each step under a line [[steps]]; seen {seen}.")
    return Recipe(tuple(from_plain(plain, f"{where}, step {at}") for at, plain in enumerate(steps, 1)), rewrite)


def to_plain(step: Step) -> dict[str, Any]:
    """Return a step as plain values: its name, and the settings that are not the default.

    Raises:
        InputError: it is none of the known steps, or a setting is a module.

    Example:
        >>> to_plain(Prune(ratio=0.5, force=True))
        {'step': 'prune', 'ratio': 0.5, 'force': True}
    """
    name = next((name for name, kind in STEPS.items() if type(step) is kind), None)
    if name is None:
        known = ", ".join(kind.__name__ for kind in STEPS.values())
        raise InputError(f"A step of class {type(step).__name__} cannot be written in a recipe; those of {known} can.")
    return {"step": name, **_settings(step, name)}


def _settings(value: Any, where: str) -> dict[str, Any]:
    return {
        field.name: _plain(getattr(value, field.name), f"{where} {field.name}")
        for field in fields(value)
        if getattr(value, field.name) != _default(field)
    }


def _default(field: "Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, nn.Module):
        raise InputError(
            f"{where}= is a module ({type(value).__name__}), which cannot be written in a recipe. Give a Thinner(...), "
            "or keep the steps in Python."
        )
    if value is None:  # where it is the default, it is left out
        return NONE
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value):
        return _settings(value, where)
    if isinstance(value, Mapping):
        return {str(name): _plain(one, where) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one, where) for one in value]
    return value


def from_plain(plain: object, where: str = "the step") -> Step:
    """Return the step that `to_plain` gave the values of.

    Args:
        where: stands before what is wrong.

    Raises:
        InputError: the step, a key or a value is wrong; for an unknown name the nearest known one is given.
    """
    if not isinstance(plain, Mapping):
        raise InputError(f"{where} must be a table with the step's name and settings; seen {shown(plain)}.")
    name = plain.get("step")
    if not isinstance(name, str):
        seen = "nothing" if name is None else shown(name)
        raise InputError(f"{where}: step must be one of {', '.join(STEPS)}; seen {seen}.")
    if name not in STEPS:
        near = get_close_matches(name.lower(), STEPS, 1, 0.0)[0]
        raise InputError(f"{where}: there is no step {one_line(repr(name), 80)}; the nearest is {near!r}.")
    settings = {key: value for key, value in plain.items() if key != "step"}
    try:
        step: Step = built(STEPS[name], settings, f"{where} ({name})")
    except RecursionError:
        raise InputError(f"{where} ({name}) is nested too deeply.") from None
    return step
