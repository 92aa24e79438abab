"""The recipes that the peer's search may try, and those that its users try first."""

from collections.abc import Iterator
from typing import Any

import optuna

from auto_peer_passes import Facts, Recipe

WEIGHT_MODES = ("int8_asym", "int8_sym", "int4_asym", "int4_sym", "nf4", "int3_sym", "int2_sym")
BITS = ("4 bits", "8 bits")
#: The format, then the types of activations and weights that it takes.
STATIC = ("QDQ int8 int8", "QDQ uint8 int8", "QDQ uint8 uint8", "QOperator uint8 uint8", "QOperator uint8 int8")
DENSE = ("float32", "float16", "dynamic int8", "static int8", *BITS)


def suggest(trial: optuna.Trial, facts: Facts) -> dict[str, Any]:
    """Draw a recipe: an engine, and for it what becomes of tables and layers, with the settings that this asks for."""
    engine = trial.suggest_categorical("engine", ("onnxruntime", "openvino"))
    drawn = _Draw(trial, "ort" if engine == "onnxruntime" else "ov")
    recipe = _onnxruntime(drawn, facts) if engine == "onnxruntime" else _openvino(drawn, facts)
    return {"engine": engine, **recipe}


class _Draw:
    """Choices by name; the engine stands before it, as each has a space of its own."""

    def __init__(self, trial: optuna.Trial, engine: str) -> None:
        self._trial, self._engine = trial, engine

    def __call__(self, name: str, *choices: Any) -> Any:
        return self._trial.suggest_categorical(f"{self._engine} {name}", choices)


def _onnxruntime(draw: _Draw, facts: Facts) -> dict[str, Any]:
    recipe = {"tables": draw("tables", "float32", "int8", *BITS) if facts.tables else "float32"}
    recipe["dense"] = draw("dense", *DENSE)
    if facts.attention:
        recipe["transformers"] = draw("transformers", False, True)
    if recipe["tables"] in BITS or recipe["dense"] in BITS:
        recipe |= {"block_size": draw("block_size", 16, 32, 64, 128), "symmetric": draw("symmetric", False, True)}
    if recipe["dense"] in BITS:
        recipe["accuracy_level"] = draw("accuracy_level", 0, 1, 4)
        algorithms = ("default", "k_quant", *(["hqq"] if recipe["dense"] == "4 bits" else []))
        recipe["algorithm"] = draw(f"algorithm of {recipe['dense']}", *algorithms)
    if recipe["dense"].endswith("int8"):
        recipe |= {name: draw(name, False, True) for name in ("per_channel", "reduce_range", "preprocess")}
    if recipe["dense"] == "dynamic int8":
        recipe["weights"] = draw("weights", "int8", "uint8")
    if recipe["dense"] == "dynamic int8" and facts.convolutions:
        recipe["convolutions"] = draw("convolutions", False, True)
    if recipe["dense"] == "static int8":
        recipe |= {"calibration": draw("calibration", "MinMax", "Entropy", "Percentile"), "kind": draw("kind", *STATIC)}
    return recipe


def _openvino(draw: _Draw, facts: Facts) -> dict[str, Any]:
    recipe = {"weights": draw("weights", "none", *WEIGHT_MODES), "precision": draw("precision", "f32", "bf16")}
    recipe["dense"] = draw("dense", "float32", "PTQ, fast bias correction", "PTQ, accurate bias correction")
    recipe["stored"] = draw("stored", "float16", "float32")
    if recipe["weights"] not in ("none", "int8_asym", "int8_sym"):
        recipe["group_size"] = draw("group_size", -1, 16, 32, 64, 128)
    if recipe["dense"] != "float32":
        recipe["preset"] = draw("preset", "performance", "mixed")
        if facts.attention:
            recipe["transformers"] = draw("transformers", False, True)
    return recipe


def first_recipes(facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield what a user of these tools tries before any search: each pass with its defaults."""
    ort = {"engine": "onnxruntime", "ort tables": "float32"} if facts.tables else {"engine": "onnxruntime"}
    ort |= {"ort transformers": False} if facts.attention else {}
    rounded = {"ort per_channel": False, "ort reduce_range": False, "ort preprocess": True}
    dynamic = {**ort, **rounded, "ort dense": "dynamic int8", "ort weights": "int8"}
    dynamic |= {"ort convolutions": True} if facts.convolutions else {}
    static = {"ort calibration": "MinMax", "ort kind": "QDQ int8 int8", "ort per_channel": True}
    blocks = {"ort block_size": 16, "ort symmetric": True, "ort dense": "4 bits", "ort accuracy_level": 0}
    ov = {"engine": "openvino", "ov weights": "none", "ov precision": "f32", "ov dense": "float32"}
    ov |= {"ov stored": "float16"}
    yield {**ort, "ort dense": "float32"}
    with_tables = {"ort tables": "int8"} if facts.tables else {}
    yield {**dynamic, **with_tables}
    yield {**ort, **rounded, **static, **with_tables, "ort dense": "static int8"}
    yield {**ort, **blocks, "ort algorithm of 4 bits": "default"} | ({"ort tables": "4 bits"} if facts.tables else {})
    yield {**ov, "ov precision": "bf16"}
    ptq = {"ov dense": "PTQ, fast bias correction", "ov preset": "performance"}
    yield {**ov, **ptq} | ({"ov transformers": True} if facts.attention else {})
    yield {**ov, "ov weights": "int8_asym", "ov precision": "bf16"}
    yield {**ov, "ov weights": "int4_asym", "ov group_size": -1, "ov precision": "bf16"}
    if facts.tables:
        yield {**dynamic, "ort tables": "4 bits", "ort block_size": 16, "ort symmetric": True, "ort per_channel": True}
    yield {**ort, "ort dense": "float16"}
    if facts.attention:
        yield {**ort, "ort dense": "float32", "ort transformers": True}


def in_words(recipe: Recipe) -> str:
    """Return a recipe in a line, the settings that apply only.

    Example: "onnxruntime: tables 4 bits, dense dynamic int8, block_size 16, symmetric"
    """
    shown = []
    for name, value in recipe.items():
        if name == "engine" or value in (False, None, "none", "float32"):
            continue
        shown.append(name if value is True else f"{name} {value}")
    return f"{recipe['engine']}: {', '.join(shown) or 'float32'}"
