"""The front of a search: which trials one may take, which was chosen, and how another is taken."""

import math
import shlex

from flyweight.report.search_data import SearchTold, TriedRecipe


def front_of(search: SearchTold) -> list[TriedRecipe]:
    """Return the trials that one may take, the smallest first."""
    kept = [trial for trial in search.trials if trial.front or trial.chosen]
    return sorted(kept, key=lambda trial: (math.inf if trial.bytes is None else trial.bytes, trial.number))


def best_in_words(search: SearchTold) -> str:
    """Return which trial was chosen, of how many.

    Example: "Trial 17 is the best of 48 recipes tried: tables 700x, int8."
    """
    count = len(search.trials)
    tried = "1 recipe" if count == 1 else f"{count:,} recipes"
    chosen = next((trial for trial in search.trials if trial.chosen), None)
    if chosen is None:
        return f"{tried} tried."
    return f"Trial {chosen.number} is the best of {tried} tried: {chosen.words}."


def pick_command(search: SearchTold) -> str:
    """Return the command that takes another trial; "" where the search is not kept."""
    return f"flyweight compress --from {shlex.quote(search.run)} --pick NUMBER" if search.run else ""
