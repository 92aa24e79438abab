"""A model in the making, one line of forward() after another, as source: what fails is printed as code."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from flyweight.task.field import Field

Shape = tuple[int, ...]
Fits = Callable[[Shape], bool]
IDS, STEPS = 7, 3
#: Kind of an input -> its sizes after the rows, and whether it holds ids.
KINDS: dict[str, tuple[Shape, bool]] = {
    "id": ((), True),
    "history": ((STEPS,), True),
    "number": ((), False),
    "numbers": ((3,), False),
    "vectors": ((2, 4), False),
}
WIDTHS = (4, 1, 2, 3)


@dataclass
class Builder:
    """A forward() in the making.

    Args:
        draw: chooses, so that hypothesis can choose something smaller.
        inputs: with their kinds.
        lines: of the forward() so far.
        made: layers and parameters by name, as they are written in an __init__.
        shapes: the values so far, with their sizes after the rows.
        histories: inputs of ids with steps.
    """

    draw: Callable[[st.SearchStrategy[Any]], Any]
    inputs: dict[str, str]
    lines: list[str] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)

    def choose(self, options: Sequence[Any]) -> Any:
        """Return one of several, rather the first."""
        return self.draw(st.sampled_from(options))

    def number(self, low: int, high: int) -> int:
        """Return a whole number in [low, high]."""
        return self.draw(st.integers(low, high))

    def either(self) -> bool:
        """Return whether or not."""
        return self.draw(st.booleans())

    def layer(self, source: str) -> str:
        """Return the name of a new layer or parameter."""
        name = f"self.m{len(self.made)}"
        self.made[name] = source
        return name

    def pick(self, *ranks: int, fits: Fits = lambda shape: True) -> str | None:
        """Return a value of so many dimensions after the rows, rather a late one; None where there is none."""
        found = self._fitting(lambda shape: (not ranks or len(shape) in ranks) and fits(shape))
        return self.draw(_rather_late(found)) if found else None

    def several(self, fits: Fits, least: int = 2) -> list[str]:
        """Return some values of those that fit, in any order, some of them perhaps twice; none if none fits."""
        found = self._fitting(fits)
        return self.draw(st.lists(_rather_late(found), min_size=least, max_size=least + 2)) if found else []

    def _fitting(self, fits: Fits) -> list[str]:
        return [name for name, shape in self.shapes.items() if fits(shape)]

    def some(self, options: Sequence[Any], low: int, high: int) -> list[Any]:
        """Return some of several, each at most once, in any order."""
        return self.draw(st.lists(st.sampled_from(options), min_size=low, max_size=high, unique=True))

    def read_inputs(self) -> None:
        """Look ids up, each in a table of its own or in one for all; take numbers as they are."""
        width, shared = self.choose(WIDTHS), self.layer(f"nn.Embedding({IDS}, 4, padding_idx=0)")
        for name, kind in self.inputs.items():
            shape, ids = KINDS[kind]
            if not ids:
                self.shapes[name] = shape
                continue
            own = self.either()
            table = self.layer(f"nn.Embedding({IDS}, {width})") if own else shared
            self.add((*shape, width if own else 4), "{table}({name})", table=table, name=name)

    def add(self, shape: Shape, *forms: str, **names: object) -> str:
        """Return the name of a new value, written in one of several forms with names to fill in."""
        source = self.choose(forms).format(**names)
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {source}")
        self.shapes[name] = shape
        return name


def _rather_late(names: list[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(names[:-4:-1]), st.sampled_from(names[::-1]))


@dataclass(frozen=True)
class Drawn:
    """A model, its fields, and what was drawn of it: printed, it is the module's source."""

    inputs: dict[str, str]
    roles: dict[str, str]
    made: dict[str, str]
    lines: tuple[str, ...]

    def __repr__(self) -> str:
        layers = [f"{name} = {source}" for name, source in self.made.items()]
        text = [f"{self.inputs}", f"{self.roles}", *layers, "", self._forward()]
        return "\n" + "\n".join(text) + "\n"

    def _forward(self) -> str:
        return "\n    ".join([f"def forward(self, {', '.join(self.inputs)}):", *self.lines])

    def module(self) -> nn.Module:
        """Return the module."""
        torch.manual_seed(len(self.lines))
        module = nn.Module()
        scope = {"torch": torch, "nn": nn, "F": nn.functional, "self": module}
        for name, source in self.made.items():
            setattr(module, name.removeprefix("self."), eval(source, scope))
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm1d):
                norm.running_mean.uniform_(-1, 1)
                norm.running_var.uniform_(0.5, 2)
            if isinstance(norm, (nn.BatchNorm1d, nn.LayerNorm)) and norm.weight is not None:
                nn.init.uniform_(norm.weight, 0.5, 2)
                nn.init.uniform_(norm.bias, -1, 1)
        exec(self._forward(), scope)
        made = type("RandomModel", (nn.Module,), {"forward": scope["forward"]})
        module.__class__ = made
        return module

    @property
    def fields(self) -> dict[str, Field]:
        """The inputs with their roles."""
        ids = {name: IDS if KINDS[kind][1] else None for name, kind in self.inputs.items()}
        return {name: Field(role, rows=ids[name]) for name, role in self.roles.items()}  # type: ignore[arg-type]

    def batch(self, rows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Return rows of inputs; histories end early, some are empty."""
        made = torch.Generator().manual_seed(seed)
        found = {}
        for name, kind in self.inputs.items():
            shape, ids = KINDS[kind]
            if ids:
                value = torch.randint(1, IDS, (rows, *shape), generator=made)
                if shape:
                    length = torch.randint(STEPS + 1, (rows, 1), generator=made)
                    value = value * (torch.arange(STEPS) < length)
            else:
                value = torch.randn(rows, *shape, generator=made, dtype=dtype)
            found[name] = value
        return found
