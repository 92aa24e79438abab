"""How often the test split was looked at for one search: each look after the first is held to a higher confidence.

Two certificates at 95% do not hold together at 95%. The n-th look is judged at `1 - (1 - confidence) / 2**(n - 1)`, and
the first of them at the confidence that was asked for, so that all looks after the first together err no more often
than the first (the Bonferroni inequality with shares that halve, as in alpha spending: Foster and Stine 2008).
"""

from flyweight.errors import InputError
from flyweight.planning.search.run_folder import RunFolder

#: Looks after which an interval would be wider than any metric: a fresh test split says more.
MOST_LOOKS = 32


def confidence_of_look(confidence: float, folder: RunFolder | None) -> float:
    """Return the confidence of the next look at the test split.

    Raises:
        InputError: it was looked at so often that another look says nothing.

    Example:
        >>> confidence_of_look(0.95, None)
        0.95
    """
    looks = 0 if folder is None else int(folder.facts().get("looks", 0))
    if folder is not None and looks >= MOST_LOOKS:
        raise InputError(
            f"The test split was looked at {looks} times for the search in {folder.path}; another interval would say "
            "nothing. Take a test split that was not looked at, and search in a new folder."
        )
    return 1 - (1 - confidence) / float(2**looks)


def note_look(folder: RunFolder | None, confidence: float) -> tuple[str, ...]:
    """Note in the folder that the test split was looked at, and return what is to be said of it."""
    if folder is None:
        return ()
    looks = int(folder.facts().get("looks", 0)) + 1
    folder.note(looks=looks)
    if looks == 1:
        return ()
    share = f"{100 * confidence:.10g}%"
    return (f"the test split was looked at for the {looks}. time for this search: intervals are {share} ones",)
