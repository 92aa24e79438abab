"""The first candidates of a search: what the joint plan of tables and layers says at several predicted damages."""

import json
from contextlib import suppress

from flyweight.errors import FlyweightError
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.joint import Joint, find_parts, plan, sensitivities
from flyweight.planning.search.run_folder import write_whole
from flyweight.planning.search.workbench import Workbench

#: How much more of the loss each plan may cost than the coding of tables that holds alone, and whether learning
#: mends it afterwards.
PLANS: tuple[tuple[float, bool], ...] = ((0.0, False), (0.001, False), (0.003, True), (0.008, True))


def plan_first(bench: Workbench, tables: float, epochs: float) -> list[Candidate]:
    """Return candidates that plan all parts together, the safest first; none where nothing can be predicted.

    Args:
        tables: the ratio of a coding that holds alone; 1 where there are no tables.
        epochs: of learning, for the plans that need it.
    """
    trial = bench.coder.tried(tables) if tables > 1 else None
    try:
        parts = find_parts(bench, tables)
    except Exception:  # whatever a model or a metric throws here: what cannot be predicted is found by trials
        return []
    if not parts.layers:
        return []
    if bench.keep is not None:
        write_whole(bench.keep[0] / "sensitivity.json", json.dumps(sensitivities(parts), indent=1) + "\n")
    start = None if trial is None else tuple(int(one) for one in trial.choice)
    base = 0.0 if start is None else parts.predicted(start)
    found: list[Candidate] = []
    for more, learns in PLANS:
        with suppress(FlyweightError):  # a coding that breaks the model
            found.append(_candidate(bench, plan(parts, base + more), tables, epochs if learns else 0.0))
    return list(dict.fromkeys(found))


def _candidate(bench: Workbench, joint: Joint, around: float, epochs: float) -> Candidate:
    """Return a plan as a candidate: what the steps are to reach, each finding its own way there."""
    coder, macs = bench.coder, bench.before.macs.total
    fine = coder.search_of(around) is not coder.search_of(1.0)
    rounded = sum(option.bits == 8 for option in joint.layers.values())
    return Candidate(
        tables=1.0 if joint.tables is None else coder.put(joint.tables, fine=fine),
        macs=min(1.0, joint.macs / max(macs, 1)),
        epochs=epochs,
        learn_first=False,
        bits="int8" if 2 * rounded > len(joint.layers) else "float32",
    )
