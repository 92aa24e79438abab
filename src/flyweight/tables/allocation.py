"""One coding for each band under a byte budget: a multiple-choice knapsack with interactions.

The damage of a choice is not a sum over bands: tables are redundant given the others. It is taken as a quadratic
form instead: `damage(c) = sum_i g_i(c_i) + 1/2 sum_ij H_ij(c_i, c_j)` (`damage.py` says where g and H come from). For a
price per byte the form is minimised by coordinate descent; the price that meets the budget is found by bisection
(Lagrangian relaxation; Everett 1963), and what is left of the budget is spent greedily.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Choice = NDArray[np.int64]
SWEEPS = 50


@dataclass(frozen=True, eq=False)
class Menu:
    """All options of all items, one item after the other.

    Args:
        starts: (items + 1,) where each item's options begin.
        bytes: (options,) bytes of each option.
    """

    starts: NDArray[np.int64]
    bytes: NDArray[np.float64]

    @property
    def items(self) -> int:
        """How many choices there are to make."""
        return len(self.starts) - 1

    def picks(self, choice: Choice) -> NDArray[np.int64]:
        """Return the option numbers of a choice, (items,)."""
        return self.starts[:-1] + choice

    def size(self, choice: Choice) -> float:
        """Return the bytes of a choice."""
        return float(self.bytes[self.picks(choice)].sum())

    def extreme(self, *, largest: bool) -> Choice:
        """Return the choice of the largest or smallest option of each item."""
        pick = np.argmax if largest else np.argmin
        return np.array([int(pick(self.bytes[a:b])) for a, b in pairwise(self.starts)])


@dataclass(frozen=True, eq=False)
class Damage:
    """Predicted rise of the mean loss: linear (options,) and curvature (options, options) terms around a choice."""

    linear: NDArray[np.float64]
    curvature: NDArray[np.float64]

    def of(self, picks: NDArray[np.int64]) -> float:
        """Return the predicted rise for chosen option numbers."""
        return float(self.linear[picks].sum() + 0.5 * self.curvature[np.ix_(picks, picks)].sum())


def allocate(menu: Menu, damage: Damage, budget: float, start: Choice) -> Choice:
    """Return the choice of least predicted damage whose bytes are within `budget`.

    Args:
        budget: bytes for all items together.
        start: the choice to start the descent from.

    Raises:
        ValueError: even the smallest options are over the budget.
    """
    smallest = menu.extreme(largest=False)
    if menu.size(smallest) > budget:
        raise ValueError(f"the smallest choice takes {menu.size(smallest):.0f} bytes, over the budget of {budget:.0f}")
    free = descend(menu, damage, 0.0, start)
    if menu.size(free) <= budget:
        return free
    low, high, best = 1e-14, 1e2, smallest
    best_damage = np.inf
    for _ in range(48):
        price = float(np.sqrt(low * high))
        # Always from the same start: from the starved choice of a price too high, descent would not come back.
        choice = descend(menu, damage, price, start)
        if menu.size(choice) <= budget:
            high = price
            if damage.of(menu.picks(choice)) < best_damage:
                best, best_damage = choice, damage.of(menu.picks(choice))
        else:
            low = price
    return _spend(menu, damage, budget, best)


def descend(menu: Menu, damage: Damage, price: float, start: Choice) -> Choice:
    """Return a choice that no change of a single item improves, at a price per byte."""
    choice = start.copy()
    picks = menu.picks(choice)
    pressed = damage.curvature[:, picks].sum(1)  # (options,): interaction of each option with all that is chosen
    own = damage.linear + 0.5 * np.diag(damage.curvature) + price * menu.bytes
    for _ in range(SWEEPS):
        moved = False
        for item in range(menu.items):
            options = slice(menu.starts[item], menu.starts[item + 1])
            current = picks[item]
            cost = own[options] + pressed[options] - damage.curvature[options, current]
            best = int(cost.argmin())
            if cost[best] < cost[choice[item]] - 1e-15:
                new = menu.starts[item] + best
                pressed += damage.curvature[:, new] - damage.curvature[:, current]
                picks[item], choice[item], moved = new, best, True
        if not moved:
            break
    return choice


def _spend(menu: Menu, damage: Damage, budget: float, choice: Choice) -> Choice:
    """Spend what is left of the budget on the single changes that lower the damage most for a byte."""
    choice = choice.copy()
    owner = np.repeat(np.arange(menu.items), np.diff(menu.starts))
    while True:
        picks = menu.picks(choice)
        pressed = damage.curvature[:, picks].sum(1) - damage.curvature[np.arange(len(owner)), picks[owner]]
        cost = damage.linear + 0.5 * np.diag(damage.curvature) + pressed
        gain = cost[picks][owner] - cost
        extra = menu.bytes - menu.bytes[picks][owner]
        worth = np.where((gain > 1e-12) & (extra <= budget - menu.size(choice)), gain / np.maximum(extra, 1.0), 0.0)
        best = int(worth.argmax())
        if worth[best] <= 0:
            return choice
        choice[owner[best]] = best - menu.starts[owner[best]]
