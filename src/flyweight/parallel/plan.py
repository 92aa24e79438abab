"""A partition in a file: where a model is cut, so that every process cuts it alike without timing it anew."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flyweight.errors import InputError
from flyweight.graph.trace import trace
from flyweight.parallel.balance import Link
from flyweight.parallel.cuts import find_cuts
from flyweight.parallel.partition import Partition, StagePlan, fingerprint_of
from flyweight.task.task import Task

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """What tells a process where to cut.

    Args:
        graph: fingerprint of the graph that was cut.
        after: number of the operator before each cut.
        rows: of the micro-batch that was timed.
        link: what stages are joined by.
        stages: what each is.
        single: the operator that takes longest, and its share.
    """

    graph: str
    after: tuple[int, ...]
    rows: int
    link: Link
    stages: tuple[StagePlan, ...]
    single: tuple[str, float]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")


def plan_of(partition: Partition) -> Plan:
    """Return where a partition cuts."""
    return Plan(
        graph=fingerprint_of(partition.traced),
        after=tuple(cut.after for cut in partition.cuts),
        rows=partition.rows,
        link=partition.link,
        stages=partition.stages,
        single=partition.single,
    )


def read_plan(path: Path) -> Plan:
    """Return the plan of a file.

    Raises:
        InputError: there is none, or it is damaged or of another version.
    """
    try:
        plain: dict[str, Any] = json.loads(path.read_text())
        if plain.pop("format") != FORMAT:
            raise InputError(f"{path} is of another format than {FORMAT}; make the plan anew.")
        stages = tuple(StagePlan(**{**one, "modules": tuple(one["modules"])}) for one in plain.pop("stages"))
        name, share = plain.pop("single")
        link = Link(**plain.pop("link"))
        return Plan(**{**plain, "after": tuple(plain["after"])}, link=link, stages=stages, single=(name, share))
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} holds no plan ({type(error).__name__}: {error}); make it anew.") from error


def cut_as_planned(task: Task, plan: Plan) -> Partition:
    """Cut a task's model where a plan says.

    Raises:
        InputError: the model is another one, or this version traces it otherwise.
    """
    inputs, _, _ = next(task.batches("validation"))
    traced = trace(task.model, inputs)
    seen = fingerprint_of(traced)
    if seen != plan.graph:
        raise InputError(
            f"The plan is of another graph ({plan.graph}) than this model's ({seen}): other layers or another version. "
            "Make the plan anew."
        )
    legal = {cut.after: cut for cut in find_cuts(traced).legal}
    lost = [after for after in plan.after if after not in legal]
    if lost or list(plan.after) != sorted(set(plan.after)) or len(plan.after) != len(plan.stages) - 1:
        raise InputError(f"The plan cuts after operators {list(plan.after)}, where this model cannot be; make it anew.")
    cuts = tuple(legal[after] for after in plan.after)
    return Partition(traced, cuts, plan.stages, plan.rows, plan.link, plan.single)
