"""Everything that was measured of the two exported models, and what can be said of it in rows and words."""

from dataclasses import dataclass
from typing import Any

from flyweight.cost.roofline import Roofline
from flyweight.planning.artefact import Artefact
from flyweight.planning.certificate import Comparison
from flyweight.planning.clock import Race
from flyweight.task.change import Change, Skipped
from flyweight.task.measurement import Measurement
from flyweight.task.scores import Scores


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that was measured of the two exported models.

    Args:
        scores: of the original and of the compressed model on the test split.
        limit: how near to the machine's limits the compressed model runs; None where that could not be worked out.
        resident: bytes a process grows by with the original's export and with the compressed model.
    """

    before: Measurement
    after: Measurement
    artefacts: tuple[Artefact, Artefact]
    comparison: Comparison
    scores: tuple[Scores, Scores]
    race: Race
    limit: Roofline | None
    resident: tuple[int | None, int | None]


def skipped_of(found: Findings, changes: tuple[Change, ...]) -> tuple[Skipped, ...]:
    """Return all that was left as it was or not counted, with reasons."""
    engines = tuple(Skipped(one.engine, one.why, "engines") for one in found.race.choice.skipped)
    return (*(one for change in changes for one in change.skipped), *engines, *found.artefacts[1].macs.skipped)


def coded_tables(changes: tuple[Change, ...]) -> list[tuple[str, int, int, str, int, int]]:
    """Return name, rows, dim, coding in words, bytes before and after of each table that was coded."""
    rows = []
    for change in changes:
        for done in change.done:
            if done.get("what") == "table":
                coding = _coding_words(done["bands"])
                sizes = done["bytes_before"], done["bytes_after"]
                rows.append((done["name"], done["rows"], done["dim"], coding, *sizes))
    return rows


def _coding_words(bands: list[dict[str, Any]]) -> str:
    """Say how a table's bands are coded; neighbours coded alike are one run."""
    runs: list[list[Any]] = []
    for band in bands:
        if runs and runs[-1][1] == band["coding"]:
            runs[-1][0] += band["stop"] - band["start"]
        else:
            runs.append([band["stop"] - band["start"], band["coding"]])
    if len(runs) == 1:
        return str(runs[0][1])
    return "; ".join(f"{rows:,} rows: {coding}" for rows, coding in runs)
