"""All rewrite rules, in the order in which they are tried."""

from flyweight.rewrite import split_linear
from flyweight.rewrite.rule import Rule

#: Bring what is left of the request out of layers that read both sides.
HOISTING: tuple[Rule, ...] = (split_linear.RULE,)
#: Make one operator of several, on either side.
FUSING: tuple[Rule, ...] = ()
RULES: tuple[Rule, ...] = (*HOISTING, *FUSING)
