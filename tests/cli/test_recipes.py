"""Recipes on the command line: run with --steps, written with --recipe, refused by name before the work."""

from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]
RECIPE = """[[steps]]
step = "encode_tables"

[steps.codings]
item = [
    { stop = 400, coding = "one 4-bit code" },
]
"""


def test_a_recipe_is_run_and_written(call: Call, place: Path, tmp_path: Path) -> None:
    (place / "small.toml").write_text(RECIPE)
    code, said, told = call(
        "compress", "mine.py:task", "--steps", "small.toml", "--out", "small.fly", "--recipe", "again.toml"
    )
    assert code == 0, told
    assert "Embedding tables" in said
    assert (place / "small.fly" / "manifest.json").is_file()
    assert not (place / "small.fly.run").exists(), "nothing was searched"
    written = (place / "again.toml").read_text()
    assert written.startswith("# Run it again: flyweight compress TASK --steps again.toml\n")
    assert RECIPE.strip() in written


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (("--steps", "none.toml"), "error: There is no file none.toml."),
        (("--steps", "mine.py"), "error: mine.py is not TOML: "),
        (("--steps", "bad.toml"), "error: bad.toml, step 1: there is no step 'encod'; the nearest is 'encode_tables'."),
        (
            ("--steps", "small.toml", "--max-trials", "3", "--run", "x.run"),
            "error: --steps runs a recipe and searches nothing; leave out --max-trials, --run.",
        ),
    ],
)
def test_recipes_that_cannot_be_run_are_refused_before_the_work(
    call: Call, place: Path, words: tuple[str, ...], seen: str
) -> None:
    (place / "bad.toml").write_text("[[steps]]\nstep = 'encod'\n")
    code, _, told = call("compress", "mine.py:task", *words, "--out", "wrong.fly")
    assert code == 2
    assert seen in told
    assert len(told.splitlines()) == 1


def test_a_recipe_that_cannot_be_written_loses_nothing(call: Call, place: Path) -> None:
    (place / "small.toml").write_text(RECIPE)
    code, _, told = call(
        "compress", "mine.py:task", "--steps", "small.toml", "--out", "kept.fly", "--recipe", str(place)
    )
    assert code == 2
    assert "The recipe cannot be written to" in told
    assert (place / "kept.fly" / "manifest.json").is_file()
