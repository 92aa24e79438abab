"""The joint plan against all there are, and where parts do not interact against an exact solver."""

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from on_paper import bench_of
from scipy.optimize import Bounds, LinearConstraint, milp

import flyweight as fw
from flyweight.planning.search.joint import Parts, find_parts, plan, sensitivities
from flyweight.planning.search.layer_menu import LayerItem, LayerOption
from flyweight.tables.allocation import Damage


@pytest.fixture(scope="module")
def parts(ranker: fw.Task) -> Parts:
    return find_parts(bench_of(ranker), 1.0)


def all_plans(parts: Parts) -> tuple[Any, Any]:
    """Return predicted damage, and bytes times milliseconds, of every combination."""
    choices = np.array(list(product(*map(range, np.diff(parts.starts)))))
    picks = choices + parts.starts[:-1]
    damages = np.array([parts.damage.of(one) for one in picks])
    return damages, parts.bytes[picks].sum(1) * parts.milliseconds[picks].sum(1)


def test_plans_of_a_small_model_are_near_the_best_of_all_there_are(parts: Parts) -> None:
    assert len(parts.bands) == len(parts.layers) == 2
    damages, costs = all_plans(parts)
    beyond = []
    for allowed in np.quantile(damages, [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]):
        found = plan(parts, float(allowed))
        assert found.predicted <= allowed
        beyond.append(found.bytes * found.milliseconds / costs[damages <= allowed].min())
    assert min(beyond) >= 1 - 1e-6
    assert np.median(beyond) < 1.05
    assert max(beyond) < 1.3


def made_up(items: int, options: int, seed: int, *, interacting: bool) -> Parts:
    """Parts whose smaller options move outputs further; times go with bytes, where parts interact."""
    drawn = np.random.default_rng(seed)
    size = np.sort(drawn.lognormal(8, 1, (items, options)), 1)[:, ::-1].ravel()
    time = size * drawn.uniform(0.5, 1.5, size.shape) / 1e4 if interacting else np.zeros(len(size))
    shifts = 0.05 * size.mean() * drawn.normal(size=(len(size), 30)) / size[:, None]
    shifts.reshape(items, options, 30)[:, 0] = 0
    curvature = shifts @ shifts.T / 30
    if not interacting:
        curvature = np.diag(np.diag(curvature))
    layers = tuple(
        LayerItem(f"layer {item}", tuple(
            LayerOption(str(number), None, 32, int(size[place]), 1, float(time[place]), None)
            for number, place in enumerate(range(item * options, (item + 1) * options))
        ))
        for item in range(items)
    )  # fmt: skip
    starts = np.arange(0, len(size) + 1, options)
    return Parts((), layers, Damage(np.zeros(len(size)), curvature), starts, np.floor(size), time)


def test_plans_of_interacting_parts_are_near_the_best_of_all_there_are() -> None:
    beyond = []
    for seed in range(6):
        parts = made_up(5, 5, seed, interacting=True)
        damages, costs = all_plans(parts)
        for share in (0.02, 0.1, 0.3):
            found = plan(parts, share * damages.max())
            assert found.predicted <= share * damages.max()
            beyond.append(found.bytes * found.milliseconds / costs[damages <= share * damages.max()].min())
    assert np.median(beyond) < 1.02
    assert np.mean(beyond) < 1.08


def test_plans_without_interactions_are_as_an_exact_solver_finds_them() -> None:
    for seed in range(2):
        parts = made_up(24, 6, seed, interacting=False)
        damages = 0.5 * np.diag(parts.damage.curvature)
        worst = sum(max(damages[start:stop]) for start, stop in pairwise(parts.starts))
        one_each = np.repeat(np.eye(24), 6, axis=1)
        for share in (0.02, 0.3):
            exact = milp(
                parts.bytes,
                constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(damages, -np.inf, share * worst)],
                integrality=np.ones(len(damages)),
                bounds=Bounds(0, 1),
            )
            assert exact.fun * (1 - 1e-3) <= plan(parts, share * worst).bytes <= exact.fun * 1.02


def test_more_damage_buys_no_worse_a_plan(parts: Parts) -> None:
    damages, _ = all_plans(parts)
    costs = [(one := plan(parts, float(a))).bytes * one.milliseconds for a in np.quantile(damages, [0.02, 0.3, 1.0])]
    assert costs[0] >= costs[1] >= costs[2]


def test_plan_says_what_it_is_made_of(parts: Parts) -> None:
    found = plan(parts, 1e9)
    assert found.tables is not None
    assert found.macs == sum(option.macs for option in found.layers.values())
    assert set(found.layers) == {item.name for item in parts.layers}
    table_bytes = [
        float(parts.bytes[start + option])
        for start, option in zip(parts.starts, found.tables, strict=False)
    ]
    assert found.bytes == sum(table_bytes) + sum(option.bytes for option in found.layers.values())
    smallest = [min(parts.bytes[start:stop]) for start, stop in pairwise(parts.starts)]
    assert sum(smallest) <= found.bytes <= 1.1 * sum(smallest)  # any damage will do


def test_sensitivities_name_every_option_of_every_part_with_its_damage_alone(parts: Parts) -> None:
    told = sensitivities(parts)
    assert [one["part"] for one in told] == ["user[0:60]", "item[0:400]", *(item.name for item in parts.layers)]
    counted = [option for one in told for option in one["options"]]  # type: ignore[attr-defined]
    assert len(counted) == len(parts.bytes)
    whole = [one["options"][0] for one in told[2:]]  # type: ignore[index]
    assert [(option["words"], option["damage"]) for option in whole] == [("whole", 0.0)] * 2
