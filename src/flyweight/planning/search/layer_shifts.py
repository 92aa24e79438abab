"""How much each option of each layer moves the outputs of each row: `sum_j g_j (dW x)_j`, g the gradient there.

Shifts of layers add to those of tables (`tables/damage.py`), so one quadratic form holds for all parts of a model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flyweight.planning.search.layer_menu import LayerItem
from flyweight.tables.sensitivity import probes
from flyweight.task.scores import call_model
from flyweight.task.task import Task


@dataclass(frozen=True, eq=False)
class LayerShifts:
    """The layers' options as `tables.damage.expand` takes them.

    Args:
        task: whose loss and outputs count.
        model: in evaluation mode, whose layers they are.
        items: the layers with their options.
    """

    task: Task
    model: nn.Module
    items: tuple[LayerItem, ...]

    @property
    def options(self) -> int:
        """How many options there are."""
        return sum(len(item.options) for item in self.items)

    def shifts(self, inputs: dict[str, Tensor], target: Tensor, number: int) -> list[Tensor]:
        """Return, for each probe of a chunk's outputs, how much each option moves each row, (options, rows)."""
        read: dict[str, Tensor] = {}
        leaves: dict[str, Tensor] = {}
        handles = []
        for item in self.items:

            def note(_: nn.Module, given: tuple[Tensor, ...], out: Tensor, name: str = item.name) -> Tensor:
                read[name] = given[0].detach()
                leaves[name] = torch.zeros_like(out).requires_grad_(True)
                return out + leaves[name]

            handles.append(self.model.get_submodule(item.name).register_forward_hook(note))
        try:
            with torch.enable_grad():
                outputs = call_model(self.model, inputs, len(target))
                fields = probes(self.task, outputs, target, number)
                pulls = [
                    torch.autograd.grad(field, list(leaves.values()), retain_graph=True, allow_unused=True)
                    for field in fields
                ]
        finally:
            for handle in handles:
                handle.remove()
        return [self._moved(read, dict(zip(leaves, pull, strict=True)), len(target)) for pull in pulls]

    def _moved(self, read: dict[str, Tensor], pulls: dict[str, Tensor | None], rows: int) -> Tensor:
        found = []
        for item in self.items:
            module, pull = self.model.get_submodule(item.name), pulls[item.name]
            for option in item.options:
                if option.change is None or pull is None:
                    found.append(torch.zeros(rows))
                    continue
                bare = {"weight": option.change.to(pull)}
                if getattr(module, "bias", None) is not None:
                    bare["bias"] = pull.new_zeros(option.change.shape[0])
                with torch.no_grad():
                    moved: Tensor = functional_call(module, bare, (read[item.name],))
                found.append((moved * pull).flatten(1).sum(1).float())
        return torch.stack(found)
