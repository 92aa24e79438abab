"""What a rewrite rule is: where it fits, why it may not be used there, and the change itself."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx

Find = Callable[[fx.GraphModule], list[fx.Node]]
Check = Callable[[fx.GraphModule, fx.Node], str | None]
Apply = Callable[[fx.GraphModule, fx.Node], None]


@dataclass(frozen=True)
class Rule:
    """A rewrite that leaves what a traced model computes as it is, up to rounding.

    Args:
        name: what reports call it: "split linear".
        find: the nodes where it might fit. A node that it has been applied to must not be found again, for rules run
            until none finds anything new.
        check: None where it may be applied, else the reason why not, one plain sentence.
        apply: change the graph, in place.
    """

    name: str
    find: Find
    check: Check
    apply: Apply
