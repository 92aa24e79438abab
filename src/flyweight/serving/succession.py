"""Whether one version of a model can take another's requests: the same inputs, the same form of scores."""

import numpy as np

from flyweight.bundle.manifest import InputEntry
from flyweight.bundle.ranker import Ranker
from flyweight.errors import InputError


def check_succession(answering: Ranker, new: Ranker) -> None:
    """Refuse a version that would not understand the requests that come in.

    Vocabularies may differ in size: new items come with every training.

    Raises:
        InputError: an input is missing, new or of another form, or the scores are.
    """
    old_inputs, new_inputs = answering.manifest.inputs, new.manifest.inputs
    hint = "Serve it as a model of its own (NAME=PATH)."
    for name in sorted(old_inputs.keys() ^ new_inputs.keys()):
        words = "lacks the input" if name in old_inputs else "takes the further input"
        raise InputError(f"{new.bundle.path} {words} {name!r}, unlike the version that answers. {hint}")
    for name, old in old_inputs.items():
        due, seen = _form(old), _form(new_inputs[name])
        if due != seen:
            raise InputError(
                f"{new.bundle.path} takes as input {name!r} {seen}; the version that answers takes {due}. {hint}"
            )
    outputs = (_output(answering), _output(new))
    if outputs[0] != outputs[1]:
        raise InputError(f"{new.bundle.path} gives {outputs[1]}; the version that answers gives {outputs[0]}. {hint}")


def _form(entry: InputEntry) -> str:
    kinds = {"b": "truths", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}
    kind = "ids" if entry.rows is not None else kinds[np.dtype(entry.dtype).kind]
    return f"{kind} of shape {entry.shape} for each {entry.role}"


def _output(ranker: Ranker) -> str:
    shape = [size for size in ranker.bundle.graph.output if size != 1]
    return f"{ranker.manifest.output} scores of shape {shape} a candidate"
