"""Matching what modules inside the student give to what modules inside the teacher give.

Romero et al., "FitNets", 2015 (arXiv 1412.6550), eq. 3: the squared error after a learned linear map where the widths
differ. It is divided by the variance of the teacher's features, so that its weight does not depend on their scale.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from flyweight.errors import InputError
from flyweight.graph.traced import TracedModel
from flyweight.task.scores import evaluating

Features = dict[str, Tensor]


class FeatureMatch(nn.Module):
    """The distance of named features of a student to those of its teacher.

    Args:
        student, teacher: modules or traced models, each called with the task's inputs.
        names: student's module to teacher's module.
        inputs: a batch, from which the widths are read.

    Raises:
        InputError: a module is not there, does not run or gives no tensor, or two features differ in more than width.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, names: Mapping[str, str], inputs: dict[str, Tensor]
    ) -> None:
        super().__init__()
        self.names = dict(names)
        # In a list, so that neither becomes a part of this module: only the maps are trained with it.
        self._models = [student, teacher]
        with evaluating(student), evaluating(teacher), torch.no_grad():
            own, wanted = features_of(student, tuple(names), inputs), self.wanted(inputs)
        maps = [_map(name, own[name], wanted[name]) for name in names]
        self.maps = nn.ModuleList(maps)

    @property
    def student(self) -> nn.Module:
        """The student."""
        return self._models[0]

    def wanted(self, inputs: dict[str, Tensor]) -> Features:
        """Return the teacher's features for a batch, by the student's names."""
        teacher = self._models[1]
        with evaluating(teacher), torch.no_grad():
            found = features_of(teacher, tuple(self.names.values()), inputs)
        return {own: found[name] for own, name in self.names.items()}

    def distance(self, own: Features, wanted: Features) -> Tensor:
        """Return the mean squared error in units of the teacher's variance, the mean over the matched modules."""
        parts = []
        for name, made in zip(self.names, self.maps, strict=True):
            target = wanted[name].to(own[name])
            error = F.mse_loss(_mapped(made, own[name]), target)
            parts.append(error / target.var(unbiased=False).clamp_min(1e-12))
        return torch.stack(parts).mean()


@contextmanager
def tapped(model: nn.Module, names: tuple[str, ...]) -> Iterator[Features]:
    """Give a dict that fills with the outputs of named modules when the model is called within the block.

    Raises:
        InputError: the model has no such module.
    """
    found: Features = {}
    with ExitStack() as stack:
        if isinstance(model, TracedModel):
            stack.enter_context(_tapped_graph(model, names, found))
        else:
            for name in names:
                module = _module(model, name)
                hook = module.register_forward_hook(lambda _m, _i, output, name=name: found.__setitem__(name, output))
                stack.callback(hook.remove)
        yield found


def features_of(model: nn.Module, names: tuple[str, ...], inputs: dict[str, Tensor]) -> Features:
    """Return the outputs of named modules for a batch.

    Raises:
        InputError: a module is not there, did not run, or gave something else than one tensor.
    """
    with tapped(model, names) as found:
        model(**inputs)
    for name in names:
        if not isinstance(found.get(name), Tensor):
            seen = type(found[name]).__name__ if name in found else "nothing, for it did not run"
            raise InputError(f"features: module {name!r} gave {seen}; name a module that returns one tensor.")
    return found


@contextmanager
def _tapped_graph(model: TracedModel, names: tuple[str, ...], found: Features) -> Iterator[None]:
    """Run the graph node by node while the block lasts, and keep the last value of each named module."""
    last = {_last_node(model.body, name): name for name in names}

    class Tap(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in last:
                found[last[n]] = value
            return value

    def forward(**inputs: Tensor) -> Any:
        return Tap(model.body).run(*(inputs[name] for name in model.names))

    model.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.forward


def _last_node(body: fx.GraphModule, name: str) -> fx.Node:
    paths: set[str] = set()
    last: fx.Node | None = None
    for node in body.graph.nodes:
        stack = (node.meta.get("nn_module_stack") or {}).values()
        inside = {str(entry[0]).split("@")[0].removeprefix("model").removeprefix(".") for entry in stack}
        paths |= inside
        if name in inside and node.op != "get_attr":
            last = node
    if last is None:
        raise _absent(name, paths)
    return last


def _module(model: nn.Module, name: str) -> nn.Module:
    found: dict[str, nn.Module] = dict(model.named_modules())
    if not name or name not in found:
        raise _absent(name, set(found))
    return found[name]


def _absent(name: str, known: set[str]) -> InputError:
    near = get_close_matches(name, sorted(known), n=3, cutoff=0.3) or sorted(known - {""})[:8]
    return InputError(f"features: there is no module {name!r}; the nearest are {', '.join(map(repr, near))}.")


def _axis(features: Tensor) -> int:
    """Return the dimension of the width: 1 for images (rows, channels, height, width), else the last."""
    return 1 if features.ndim == 4 else features.ndim - 1


def _map(name: str, own: Tensor, wanted: Tensor) -> nn.Module:
    axis = _axis(own)
    others = [(shape[:axis] + shape[axis + 1 :]) for shape in (own.shape, wanted.shape)]
    if own.ndim != wanted.ndim or others[0] != others[1]:
        raise InputError(
            f"features: {name!r} gives {tuple(own.shape)} and the teacher's module {tuple(wanted.shape)}; "
            "they may differ in width only."
        )
    if own.shape[axis] == wanted.shape[axis]:
        return nn.Identity()
    return nn.Linear(own.shape[axis], wanted.shape[axis], bias=False).to(own.device)


def _mapped(made: nn.Module, own: Tensor) -> Tensor:
    axis = _axis(own)
    mapped: Tensor = made(own.movedim(axis, -1)).movedim(-1, axis)
    return mapped
