"""The allocation against brute force over all choices of small random menus."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flyweight.tables.allocation import Damage, Menu, allocate, descend


def drawn(seed: int, items: int = 5, options: int = 4) -> tuple[Menu, Damage]:
    """Random sizes, and damage as it comes about: more bytes shift outputs less, shifts of items are correlated."""
    rng = np.random.default_rng(seed)
    starts = np.arange(items + 1) * options
    sizes = np.sort(rng.integers(1, 100, (items, options)), axis=1).astype(float)
    shifts = rng.normal(size=(items, options, 30)) * 8 / np.sqrt(sizes)[:, :, None] + 0.3 * rng.normal(size=30)
    flat = shifts.reshape(items * options, 30)
    linear = rng.normal(size=items * options) * 0.1 + np.abs(flat).mean(1)
    return Menu(starts, sizes.reshape(-1)), Damage(linear, flat @ flat.T / 30)


def everything(menu: Menu) -> list[NDArray[np.int64]]:
    return [np.array(choice) for choice in product(*(range(count) for count in np.diff(menu.starts)))]


def best_within(menu: Menu, damage: Damage, budget: float) -> float:
    return min(damage.of(menu.picks(choice)) for choice in everything(menu) if menu.size(choice) <= budget)


@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 1.0))
@settings(max_examples=20, deadline=None)
def test_choice_is_within_budget(seed: int, share: float) -> None:
    menu, damage = drawn(seed)
    low, high = (menu.size(menu.extreme(largest=largest)) for largest in (False, True))
    budget = low + share * (high - low)
    assert menu.size(allocate(menu, damage, budget, menu.extreme(largest=True))) <= budget


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_damage_is_close_to_that_of_the_best_choice_there_is(share: float) -> None:
    gaps = []
    for seed in range(15):
        menu, damage = drawn(seed)
        low, high = (menu.size(menu.extreme(largest=largest)) for largest in (False, True))
        budget = low + share * (high - low)
        found = damage.of(menu.picks(allocate(menu, damage, budget, menu.extreme(largest=True))))
        best, worst = best_within(menu, damage, budget), damage.of(menu.picks(menu.extreme(largest=False)))
        assert found >= best - 1e-9
        gaps.append((found - best) / max(worst - best, 1e-9))
    assert np.mean(gaps) < 0.06
    assert np.median(gaps) < 0.02


def test_budget_for_everything_is_unconstrained_descent() -> None:
    menu, damage = drawn(3)
    start = menu.extreme(largest=True)
    free = descend(menu, damage, 0.0, start)
    assert (allocate(menu, damage, np.inf, start) == free).all()
    value = damage.of(menu.picks(free))
    for item in range(menu.items):
        for option in range(4):
            other = free.copy()
            other[item] = option
            assert damage.of(menu.picks(other)) >= value - 1e-9


def test_price_beyond_all_damage_takes_the_smallest() -> None:
    menu, damage = drawn(4)
    assert (descend(menu, damage, 1e9, menu.extreme(largest=True)) == menu.extreme(largest=False)).all()


def test_redundant_tables_are_not_both_given_up() -> None:
    """Each table alone can go for nothing; both together cost a lot. A sum of separate damages would drop both."""
    menu = Menu(np.array([0, 2, 4]), np.array([1.0, 10.0, 1.0, 10.0]))
    curvature = np.zeros((4, 4))
    curvature[0, 2] = curvature[2, 0] = 5.0
    damage = Damage(np.zeros(4), curvature)
    choice = allocate(menu, damage, 11.0, np.array([1, 1]))
    assert menu.size(choice) == 11.0
    assert damage.of(menu.picks(choice)) == 0.0


def test_budget_below_the_smallest_choice_is_refused_with_numbers() -> None:
    menu, damage = drawn(5)
    smallest = menu.size(menu.extreme(largest=False))
    with pytest.raises(ValueError, match=f"takes {smallest:.0f} bytes, over the budget of {smallest - 1:.0f}"):
        allocate(menu, damage, smallest - 1, menu.extreme(largest=True))
