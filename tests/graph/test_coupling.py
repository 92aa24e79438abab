"""Groups hold all that must be cut together, and what cannot be cut is listed with the reason."""

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.graph.coupled.analysis import components
from flyweight.graph.coupling import Group, Place, find_groups
from flyweight.graph.trace import trace


def groups_of(model: nn.Module, **inputs: Tensor) -> tuple[dict[str, Group], dict[str, str]]:
    groups, skipped = find_groups(trace(model.eval(), inputs))
    return {group.name: group for group in groups}, {one.what: one.why for one in skipped}


def test_a_neuron_is_its_row_its_bias_and_the_column_that_reads_it() -> None:
    groups, skipped = groups_of(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), input=torch.zeros(2, 4))
    (group,) = groups.values()
    assert (group.name, group.kind, group.layers) == ("0", "neurons", ("0", "2"))
    assert group.units[1].places == (Place("0.weight", 0, (1,)), Place("0.bias", 0, (1,)), Place("2.weight", 1, (1,)))
    assert skipped == {"2": "its 2 outputs stay: the model returns it"}


def test_components_are_the_sets_that_pairs_connect() -> None:
    one, other = np.array([5, 1, 7, 8]), np.array([4, 5, 8, 2])
    assert components(9, [(one, other)]).tolist() == [0, 1, 2, 3, 1, 1, 6, 2, 2]
