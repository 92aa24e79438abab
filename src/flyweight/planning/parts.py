"""Where a model's bytes, work and time lie, module by module."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from flyweight.cost.module_macs import module_macs
from flyweight.cost.sizes import module_sizes


@dataclass(frozen=True)
class Part:
    """One module, without those inside it.

    Args:
        name, kind: its path in the model ("" for the model itself) and its class.
        bytes: of its tensors.
        macs: multiply-accumulates of a row in it.
        ms: of the timed call, of the operators that work for it; None where operators were not timed.
    """

    name: str
    kind: str
    bytes: int
    macs: int
    ms: float | None = None


def find_parts(
    model: nn.Module, inputs: Mapping[str, Tensor], rows: int, ms: Mapping[str, float] | None = None
) -> tuple[Part, ...]:
    """Return every module with tensors, work or time of its own, the most bytes first.

    Args:
        inputs, rows: a batch, and its rows.
        ms: milliseconds by module; None where they are not known.
    """
    macs = module_macs(model, inputs, rows)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    sizes: dict[str, int] = {}
    for one in module_sizes(model):
        sizes[one.module] = sizes.get(one.module, 0) + one.bytes
    names = dict.fromkeys([*sizes, *macs, *(ms or {})])
    found = [
        Part(name, kinds.get(name, ""), sizes.get(name, 0), macs.get(name, 0), None if ms is None else ms.get(name, 0))
        for name in names
    ]
    return tuple(sorted(found, key=lambda part: -part.bytes))
