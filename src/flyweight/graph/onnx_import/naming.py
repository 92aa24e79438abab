"""Names of an ONNX file as names of modules, tensors and arguments."""

import re
from collections.abc import Collection, Iterable

from torch import nn

from flyweight.graph.onnx_import.node import Node

_WEIGHT = re.compile(r"(.+)[./](?:weight|bias|kernel|gamma|beta|W|b)(?::0)?")


def prefix_of(names: Iterable[str]) -> str:
    """Return "model." where an exporter put it before every dotted name, and "" elsewhere."""
    dotted = [name for name in names if "." in name]
    return "model." if dotted and all(name.startswith("model.") for name in dotted) else ""


def layer_name(node: Node, weights: Iterable[str], prefix: str) -> str:
    """Return the dotted name of a node's module: that of its weights without "weight", or else the node's own."""
    for name in weights:
        found = _WEIGHT.fullmatch(name)
        if found:
            return dotted(found[1].removeprefix(prefix))
    return dotted(node.name)


def dotted(name: str) -> str:
    """Return a name of a file as a dotted path of words.

    Example:
        >>> dotted("/encoder/layer.0/onnx::MatMul_7")
        'encoder.layer.0.onnx.MatMul_7'
    """
    words = [re.sub(r"\W", "_", word) for word in re.split(r"[./:]+", name)[:32]]
    return ".".join(word[:80] for word in words if word) or "unnamed"


def argument(name: str, taken: Collection[str]) -> str:
    """Return the name of an input as that of a Python argument that is not taken yet."""
    word = re.sub(r"\W", "_", name)[:80]
    word = f"input_{word}" if not word or word[0].isdigit() else word
    while word in taken:
        word += "_"
    return word


def place(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the module that is to hold a new child or tensor of a dotted name, and its free last word."""
    *words, last = path.split(".")
    for word in words:
        word = word if word in root._modules else _free(root, word)
        if word not in root._modules:
            root.add_module(word, nn.Module())
        found = root._modules[word]
        assert found is not None
        root = found
    return root, _free(root, last)


def _free(holder: nn.Module, word: str) -> str:
    while hasattr(holder, word):
        word += "_"
    return word
