"""Recipes as files: written and read back they are the same steps, and whatever is wrong is named with its place."""

import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import flyweight as fw
from flyweight.distillation.losses import LossName
from flyweight.distillation.student import Thinner
from flyweight.planning.recipe import STEPS, Recipe, from_plain, read_recipe, to_plain, write_recipe
from flyweight.planning.toml_text import MOST_BYTES, toml_of
from flyweight.pruning.prune import KINDS
from flyweight.pruning.saliency import SALIENCIES
from flyweight.quantization.given_precisions import PRECISIONS
from flyweight.tables.coded_teacher import CodedTeacher
from flyweight.tables.coding import Coding

names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
counts, seeds = st.integers(1, 10**12), st.integers(-(2**63), 2**63 - 1)
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)
sizes = st.floats(0, 1e300, exclude_min=True)
coding_words = st.builds(Coding, groups=st.integers(1, 64), stages=st.integers(1, 8), bits=st.integers(0, 8)).map(str)


@st.composite
def plans(draw: st.DrawFn) -> dict[str, list[dict[str, Any]]]:
    """Bands of rising stops for a few tables."""
    bands = st.lists(st.tuples(counts, coding_words), min_size=1, max_size=4, unique_by=lambda band: band[0])
    tables = draw(st.dictionaries(names, bands, min_size=1, max_size=3))
    return {
        name: [{"stop": stop, "coding": words} for stop, words in sorted(found)] for name, found in tables.items()
    }


def some(**values: Any) -> Any:
    """Any of the settings, and none of them."""
    return st.fixed_dictionaries({}, optional=values)


def step(kind: Any, required: Any, **optional: Any) -> Any:
    """Steps of a class: one of the required settings, and some of the others."""
    return st.builds(lambda one, more: kind(**(one | more)), required, some(seed=seeds, **optional))


def one_of(**values: Any) -> Any:
    return st.one_of([st.fixed_dictionaries({name: value}) for name, value in values.items()])


steps = st.one_of(
    step(fw.EncodeTables, one_of(ratio=sizes, bits_per_row=sizes, max_drop=sizes, codings=plans())),
    step(CodedTeacher, one_of(ratio=sizes, codings=plans())),
    step(fw.DropFields, one_of(at_most=counts, max_drop=sizes, names=st.lists(names, min_size=1, max_size=40))),
    step(
        fw.Prune,
        one_of(ratio=shares, max_macs=counts),
        saliency=st.sampled_from(SALIENCIES),
        scope=st.sampled_from(["global", "layer"]),
        multiple=counts,
        rounds=counts,
        recover=sizes,
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
        force=st.booleans(),
    ),
    step(fw.Factorize, one_of(max_macs=counts, ranks=st.dictionaries(names, counts, min_size=1)), multiple=counts),
    step(fw.ShareWeights, some(bits=st.integers(1, 8)), recover=sizes),
    step(
        fw.Quantize,
        one_of(
            weights=st.sampled_from(PRECISIONS),
            precisions=st.dictionaries(names, st.sampled_from(PRECISIONS), min_size=1),
        ),
        activations=st.sampled_from(["int8", None]),
        smooth=shares,
        bias_correction=st.booleans(),
        max_error=shares,
        group_size=st.integers(2, 512),
    ),
    step(
        fw.Distill,
        st.fixed_dictionaries({"epochs": sizes}),
        student=st.builds(Thinner, width=shares),
        lr=sizes,
        loss=st.sampled_from(get_args(LossName)),
        features=st.dictionaries(names, names, max_size=3),
        tables=st.booleans(),
        checkpoint=names,
    ),
)


@given(st.lists(steps, max_size=4), st.sampled_from([None, True, False]), st.lists(names, max_size=2))
@settings(max_examples=60, deadline=None)
def test_steps_written_and_read_are_the_same_steps(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[fw.Step], rewrite: bool | None, notes: list[str]
) -> None:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    recipe = read_recipe(write_recipe(path, drawn, rewrite=rewrite, notes=notes))
    assert recipe == Recipe(tuple(drawn), rewrite)
    first = path.read_bytes()
    write_recipe(path, recipe.steps, rewrite=recipe.rewrite, notes=notes)
    assert path.read_bytes() == first


def test_every_step_has_the_name_of_its_reports() -> None:
    made = {
        "encode_tables": {"ratio": 2.0}, "coded_teacher": {"ratio": 2.0}, "drop_fields": {"at_most": 1},
        "prune": {"ratio": 0.5}, "distill": {"epochs": 1.0}, "factorize": {"max_macs": 9},
    }  # fmt: skip
    for name in STEPS:
        assert from_plain({"step": name, **made.get(name, {})}).name == name


def test_a_recipe_reads_well(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path / "small.toml",
        [
            fw.EncodeTables(
                codings={
                    "item": [{"stop": 64, "coding": "2 4-bit codes"}, {"stop": 8_000, "coding": "one shared vector"}],
                    "tower.user": [{"stop": 60, "coding": "float16 rows"}],
                }
            ),
            fw.Prune(ratio=0.5, kinds=("neurons", "heads"), force=True),
            fw.Quantize(precisions={"mlp.0": "int8", "mlp.2": "float32"}, activations=None),
            fw.Distill(epochs=0.5, student=Thinner(depth=0.5)),
        ],
        rewrite=True,
        notes=["1.5 MB, 16 times smaller"],
    )
    assert path.read_text() == '''# Run it again: flyweight compress TASK --steps small.toml
# 1.5 MB, 16 times smaller

rewrite = true

[[steps]]
step = "encode_tables"

[steps.codings]
item = [
    { stop = 64, coding = "2 4-bit codes" },
    { stop = 8000, coding = "one shared vector" },
]
"tower.user" = [
    { stop = 60, coding = "float16 rows" },
]

[[steps]]
step = "prune"
ratio = 0.5
kinds = ["neurons", "heads"]
force = true

[[steps]]
step = "quantize"
activations = "none"

[steps.precisions]
"mlp.0" = "int8"
"mlp.2" = "float32"

[[steps]]
step = "distill"
epochs = 0.5

[steps.student]
depth = 0.5
'''


def test_the_recipe_in_the_notes_can_be_read(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "recipes.md").read_text()
    path = tmp_path / "small.toml"
    path.write_text(text.partition("```toml\n")[2].partition("```")[0])
    recipe = read_recipe(path)
    assert recipe.rewrite is True
    assert recipe.steps[1:] == (
        fw.Factorize(ranks={"mlp.0": 16}, force=True),
        fw.Quantize(precisions={"mlp.0": "int8", "mlp.2": "float32"}, activations=None, force=True),
    )


def test_a_module_and_a_step_of_ones_own_cannot_be_written(tmp_path: Path) -> None:
    class Mine:
        name = "mine"

        def apply(self, task: fw.Task) -> fw.Change:
            return fw.Change("mine", task.model)

    with pytest.raises(fw.InputError, match=r"student= is a module \(Linear\), which cannot be written in a recipe"):
        to_plain(fw.Distill(epochs=1, student=nn.Linear(1, 1)))
    with pytest.raises(fw.InputError, match="A step of class Mine cannot be written in a recipe; those of E"):
        write_recipe(tmp_path / "mine.toml", [Mine()])
    with pytest.raises(fw.InputError, match="cannot be written as TOML"):
        write_recipe(tmp_path / "odd.toml", [fw.DropFields(names=["\ud800"])])
    with pytest.raises(fw.InputError, match=r"cannot be written to .*: Is a directory; choose another path"):
        write_recipe(tmp_path, [fw.Prune(ratio=0.5)])
    assert not list(tmp_path.iterdir())


WRONG = {
    "steps = 3": "steps must be a list, each step under a line [[steps]]; seen 3",
    "": "steps must be a list, each step under a line [[steps]]; seen nothing",
    "stpes = []": "'stpes' is unknown; the nearest known is 'steps'",
    "steps = []\nrewrite = 1": "rewrite must be true or false; seen 1",
    "steps = [4]": "step 1 must be a table with the step's name and settings; seen 4",
    "[[steps]]\nratio = 2": "step 1: step must be one of encode_tables, coded_teacher, drop_fields, prune, distill,",
    "[[steps]]\nstep = 'EncodeTable'": "step 1: there is no step 'EncodeTable'; the nearest is 'encode_tables'",
    "[[steps]]\nstep = ''": "step 1: there is no step ''; the nearest is",
    "steps = [{step = 'prune', ratio = 0.5}, {step = 'prune', rtaio = 0.5}]": (
        "step 2 (prune): 'rtaio' is no setting of it; the nearest is 'ratio'"
    ),
    "steps = [{step = 'prune', ratio = 'half'}]": "step 1 (prune): ratio must be a number; seen 'half'",
    "steps = [{step = 'prune', ratio = true}]": "ratio must be a number; seen True",
    "steps = [{step = 'prune', ratio = 2.5}]": "step 1 (prune): Prune ratio must lie between 0 and 1, both excluded",
    "steps = [{step = 'prune', ratio = 0.5, kinds = 'all'}]": "kinds must be a list of texts; seen 'all'",
    "steps = [{step = 'prune', ratio = 0.5, kinds = [1]}]": "kinds, entry 1 must be a text; seen 1",
    "steps = [{step = 'prune', ratio = 0.5, seed = 1.0}]": "seed must be a whole number; seen 1.0",
    f"steps = [{{step = 'prune', ratio = 0.5, seed = {10**30}}}]": "seed must be a whole number; seen a number of",
    "steps = [{step = 'prune', ratio = 0.5, force = 'yes'}]": "force must be true or false; seen 'yes'",
    "steps = [{step = 'prune', ratio = 1979-05-27}]": "ratio must be a number; seen datetime.date(1979, 5, 27)",
    "steps = [{step = 'prune', ratio = nan}]": "Prune ratio must lie between 0 and 1, both excluded",
    "steps = [{step = 'distill'}]": "step 1 (distill): epochs is missing; it must be a number",
    "steps = [{step = 'distill', epochs = 1, student = 'big'}]": "student must be a table; seen 'big'",
    "steps = [{step = 'distill', epochs = 1, student = {wdith = 0.5}}]": (
        "step 1 (distill), student: 'wdith' is no setting of it; the nearest is 'width'"
    ),
    "steps = [{step = 'distill', epochs = 1, loss = 'sfot'}]": "loss must be one of 'soft', 'score', 'pairwise', 'li",
    "steps = [{step = 'distill', epochs = 1, features = {a = 1}}]": "(distill): features.a must be a text; seen 1",
    "steps = [{step = 'factorize', ranks = {a = 'x'}}]": "step 1 (factorize): ranks.a must be a whole number; seen 'x'",
    "steps = [{step = 'factorize', ranks = {a = 0}}]": "rank of layer 'a' must be a whole number of at least 1; seen 0",
    "steps = [{step = 'quantize', precisions = {a = 'int7'}}]": (
        "step 1 (quantize): precisions.a must be one of 'float32', 'bfloat16', 'int8', 'int4'; seen 'int7'"
    ),
    "steps = [{step = 'quantize', activations = 'int4'}]": "activations must be one of 'int8', 'none'; seen 'int4'",
    "steps = [{step = 'encode_tables', codings = {a = [{stop = 4, coding = 'x'}]}}]": (
        "step 1 (encode_tables): Table 'a', band 1: coding 'x' is unknown; it may be"
    ),
    "steps = [": "is not TOML: Invalid value",
    "steps = []\nsteps = []": "is not TOML: Cannot overwrite a value",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_a_recipe_is_named_with_its_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(fw.InputError) as error:
        read_recipe(path)
    assert str(error.value).startswith(str(path))
    assert WRONG[text] in str(error.value)
    assert len(str(error.value)) < 700


HOSTILE: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (b"steps = []\xff", "is not UTF-8 text (byte 10 is 0xff); a recipe is a text file"),
    "UTF-16": ("steps = []".encode("utf-16"), "is not UTF-8 text"),
    "binary": (b"steps = []\0", "is not TOML"),
    "huge": (b"#" * (MOST_BYTES + 1), f"is too large for a recipe: over {MOST_BYTES:,} bytes"),
    "deep lists": (b"steps = " + b"[\n" * 100_000, "nested too deeply"),
    "deep tables": (b"a." * 90 + b"a = 1\nsteps = []", "'a' is unknown"),
    "long key": (b"a." * 300 + b"a = 1", "line 1 is too long: 605 characters and 300 dots"),
    "long line": (b"steps = [" + b"1," * 600 + b"]", "line 1 is too long: 1,210 characters and 0 dots, of at most"),
    "many digits": (b"steps = [\n" + b"9" * 990 + b"\n]", "step 1 must be a table with the step's name and settings"),
    "deep setting": (
        b"[[steps]]\nstep = 'coded_teacher'\n" + b"codings." + b"a." * 90 + b"a = 1",
        "Table 'a' needs a list of bands",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_mean_harm_are_refused(tmp_path: Path, name: str) -> None:
    data, words = HOSTILE[name]
    (tmp_path / "bad.toml").write_bytes(data)
    with pytest.raises(fw.InputError) as error:
        read_recipe(tmp_path / "bad.toml")
    assert words in str(error.value)
    assert len(str(error.value)) < 700


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fw.InputError, match=r"^There is no file .*none\.toml"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(fw.InputError, match=f"^{tmp_path} is no file; give the recipe itself"):
        read_recipe(tmp_path)
    with pytest.raises(fw.InputError, match="is no file"):
        read_recipe("/dev/zero")
    with pytest.raises(fw.InputError, match=r"There is no file|cannot be read: "):
        read_recipe("a\0b")
    with pytest.raises(fw.InputError, match=r"cannot be read: .*File name too long"):
        read_recipe("a" * 5_000)


values = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), names),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(names, values, max_size=5))
@settings(max_examples=100, deadline=None)
def test_toml_is_what_the_standard_reader_reads(document: dict[str, Any]) -> None:
    assert tomllib.loads(toml_of(document)) == document


@pytest.mark.parametrize("value", [None, "\ud800", [object()]])
def test_values_without_a_spelling_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        toml_of({"a": value})
