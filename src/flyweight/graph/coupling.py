"""Groups of units that a model can lose: which indices of which tensors must be cut together."""

from flyweight.graph.coupled.grouping import grouping
from flyweight.graph.coupled.groups import Group, Place, Unit
from flyweight.graph.traced import TracedModel
from flyweight.task.change import Skipped

__all__ = ["Group", "Place", "Unit", "find_groups"]




def find_groups(traced: TracedModel) -> tuple[tuple[Group, ...], tuple[Skipped, ...]]:
    """Return what can be cut from a model, and the layers' outputs that cannot, each with the reason.

    Every index of every dimension of every weight starts as a unit of its own; one pass over the graph unites those
    that its operators read side by side: a filter with its bias, its norm and the columns that read it, both sides of a
    residual sum, a channel's every pixel after `flatten`, all of an attention head.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> (group,), (output,) = find_groups(trace(model, {"input": torch.zeros(2, 4)}))
        >>> group.name, group.kind, group.units[1].places
        ('0', 'neurons', (Place('0.weight', 0, (1,)), Place('0.bias', 0, (1,)), Place('2.weight', 1, (1,))))
        >>> str(output)
        '2: its 2 outputs stay: the model returns it'
    """
    found = grouping(traced)
    return found.groups, found.skipped
