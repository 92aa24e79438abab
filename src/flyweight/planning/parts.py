"""Where a model's bytes, work and time lie, module by module."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from flyweight.cost.module_macs import module_macs
from flyweight.cost.sizes import module_sizes
from flyweight.engines.node_owners import node_owners
from flyweight.engines.operator_times import OperatorTimes


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
        ms: milliseconds by module, as `module_ms` gives them.
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


def module_ms(path: Path, model: nn.Module, times: OperatorTimes) -> dict[str, float]:
    """Return the milliseconds of a call by the module that they are for; what works for several is left out.

    Args:
        path: the file that was timed, an export of the model as it is.
    """
    owners = node_owners(path, {name for name, _ in model.named_modules()})
    found: dict[str, float] = {}
    for one in times.operators:
        owner = next((owners[node] for node in one.nodes if node in owners), None)
        if owner is not None:
            found[owner] = found.get(owner, 0.0) + one.ms
    return found
