"""Models drawn at random: inputs of several kinds and roles, operators on them and on each other, a score."""

from collections.abc import Callable
from typing import Any

from drawn_model import KINDS, Builder, Drawn
from hypothesis import strategies as st
from random_blocks import attention, bag, cross, dlrm, dots, machine, matched, matrices, perceptron
from random_operators import (
    batch_norm,
    by_steps,
    cut,
    each,
    flat,
    flattened,
    joined,
    linear,
    mixed,
    of_size,
    pair,
    prelu,
    reduced,
    repeated,
    scaled,
    split,
    stacked,
    turned,
    viewed,
    whole_row,
    whole_sum,
    with_parameter,
)

Roles = tuple[str, ...]
#: What the rules look at stands first, and three times.
OPERATORS: tuple[Callable[[Builder], None], ...] = (
    *(each, linear, joined, stacked, dlrm, cross) * 3,
    batch_norm,
    by_steps,
    cut,
    flattened,
    of_size,
    pair,
    prelu,
    reduced,
    repeated,
    scaled,
    split,
    turned,
    viewed,
    whole_row,
    whole_sum,
    with_parameter,
    attention,
    bag,
    dots,
    machine,
    matched,
    matrices,
    perceptron,
)


@st.composite
def random_models(
    draw: Callable[[st.SearchStrategy[Any]], Any],
    roles: Roles = ("request", "candidate"),
    *,
    steps: int = 8,
    mixing: bool = False,
) -> Drawn:
    """Draw a model of two to four inputs.

    Args:
        roles: of the inputs, at random; each is there at least once.
        steps: how many operators at most.
        mixing: whether one of them lets rows see each other.
    """
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=2, max_size=4))
    inputs = {f"i{place}": kind for place, kind in enumerate(kinds)}
    more = [draw(st.sampled_from(roles)) for _ in range(len(inputs) - len(roles))]
    made = Builder(draw, inputs)
    made.read_inputs()
    drawn = draw(st.lists(st.sampled_from(OPERATORS), min_size=(most := draw(st.integers(1, steps))), max_size=most))
    for operator in [*drawn, mixed, *drawn[:2]] if mixing else drawn:
        operator(made)
    _score(made)
    order = draw(st.permutations([*roles, *more]))
    return Drawn(inputs, dict(zip(inputs, order, strict=True)), made.made, tuple(made.lines))


def _score(b: Builder) -> None:
    """Read the last value and some others into one number a row, or two."""
    values = list(b.shapes)
    others = b.draw(st.lists(st.sampled_from(values), max_size=2, unique=True))
    read = b.draw(st.permutations([values[-1], *(one for one in others if one != values[-1])]))
    if b.either():
        columns = [flat(b, one) for one in read]
        width = sum(b.shapes[one][0] for one in columns)
        joined = columns[0] if len(columns) == 1 else b.add((width,), f"torch.cat([{', '.join(columns)}], -1)")
        outputs = b.number(1, 2)
        layer = b.layer(f"nn.Linear({width}, {outputs})")
        b.lines.append(f"return {layer}({joined})" + (".squeeze(1)" if outputs == 1 else ""))
    else:
        sums = [one if b.shapes[one] == () else f"{flat(b, one)}.sum(1)" for one in read]
        b.lines.append(f"return {' + '.join(sums)}")
