"""The copy that is trained: what may move in it, what stays shared with the user's model, and its best state so far.

Tables (the weights of `nn.Embedding` and `nn.EmbeddingBag`, the codes of coded tables) are shared, not copied, unless
they are to be trained. A module that keeps parameters in half precision which training may move names them in a class
attribute `recovers`; they are trained in float32, and judged and handed on as rounded as they will be stored.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.graph.traced import TracedModel

State = dict[str, Tensor]
TABLES = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True, eq=False)
class Working:
    """A copy of a model for training.

    Args:
        model: the copy.
        trained: the parameters that training moves, by name.
        sparse: which of them get sparse gradients.
        rates: each one's share of the learning rate, from its module's `recovery_rate` (1 where it has none).
        dtypes: those kept in another precision than they are trained in, and that precision.
        flags: whether each parameter of the model wanted gradients before.
    """

    model: nn.Module
    trained: dict[str, nn.Parameter]
    sparse: frozenset[str] = frozenset()
    rates: dict[str, float] = field(default_factory=dict)
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.trained.values())

    def state(self, *, exact: bool = False) -> State:
        """Return a copy of all that training has moved; rounded as it will be stored, unless exact."""
        weights = {
            name: value.detach().clone() if exact else value.detach().to(self.dtypes.get(name, value.dtype), copy=True)
            for name, value in self.trained.items()
        }
        return weights | {name: value.clone() for name, value in moving_buffers(self.model)}

    def restore(self, state: State) -> None:
        """Put a state back."""
        places: dict[str, Tensor] = {**self.trained, **dict(moving_buffers(self.model))}
        with torch.no_grad():
            for name, value in state.items():
                places[name].copy_(value)

    @contextmanager
    def rounded(self) -> Iterator[nn.Module]:
        """Hold the model in evaluation mode as it will be stored, and go on exactly where it was afterwards."""
        exact = {name: self.trained[name].detach().clone() for name in self.dtypes}
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            for name, dtype in self.dtypes.items():
                self.trained[name].copy_(exact[name].to(dtype))
        try:
            yield self.model
        finally:
            with torch.no_grad():
                for name, value in exact.items():
                    self.trained[name].copy_(value)
            self.model.train(training)

    def finished(self, state: State) -> nn.Module:
        """Return the model with a state, stored as the original was, in evaluation mode."""
        self.restore(state)
        stored = {
            id(self.trained[name]): nn.Parameter(self.trained[name].detach().to(dtype), requires_grad=False)
            for name, dtype in self.dtypes.items()
        }
        _replace(self.model, stored)
        for name, parameter in self.model.named_parameters():
            parameter.grad = None
            parameter.requires_grad_(self.flags[name])
        return self.model.eval()


def working_copy(model: nn.Module, *, tables: bool = False) -> Working:
    """Return a copy of a model whose dense parameters and codebooks want gradients, and its tables if `tables`.

    Parameters that the user has frozen (`requires_grad=False`) stay frozen, unless all are.

    Raises:
        InputError: the model cannot be copied, or nothing in it can be trained.
    """
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    copied = _copy(model, _shared(model, tables=tables))
    of_tables = {id(module.weight): module for module in copied.modules() if isinstance(module, TABLES)}
    masters = _masters(copied)
    all_frozen = not any(flags[name] for name, value in copied.named_parameters() if id(value) not in of_tables)
    trained, sparse, dtypes = {}, set(), {}
    for name, parameter in copied.named_parameters():
        table = of_tables.get(id(parameter))
        stored = masters.get(id(parameter))
        moves = stored is not None or (tables if table is not None else flags[name] or all_frozen)
        moves = moves and parameter.dtype in (torch.float32, torch.float64)
        parameter.requires_grad_(moves)
        if not moves:
            continue
        trained[name] = parameter
        if stored is not None:
            dtypes[name] = stored
        if table is not None and table.sparse:
            sparse.add(name)
    if not trained:
        raise InputError(
            "Nothing in the model can be trained: it has no float32 weights beside its embedding tables. "
            "Train the tables as well (tables=True), or leave recovery out."
        )
    return Working(copied, trained, frozenset(sparse), _rates(copied, trained), dtypes, flags)


def _shared(model: nn.Module, *, tables: bool) -> dict[int, Tensor]:
    """Return, by `id`, the tensors that a copy shares with the model: tables that stay, and codes."""
    memo: dict[int, Tensor] = {}
    for module in model.modules():
        if isinstance(module, TABLES) and not tables:
            memo[id(module.weight)] = nn.Parameter(module.weight.detach(), requires_grad=False)
        if hasattr(module, "recovers"):
            memo |= {id(buffer): buffer for buffer in module.buffers(recurse=False)}
    return memo


def _copy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"The model cannot be copied ({error}); the copy is what is trained. "
            "Keep files, locks, generators and computed tensors out of the module's attributes."
        ) from error


def _masters(model: nn.Module) -> dict[int, torch.dtype]:
    """Put float32 parameters in the place of those that modules name in `recovers`; return their own dtypes by `id`."""
    own: dict[int, torch.dtype] = {}
    for module in model.modules():
        for name in getattr(module, "recovers", ()):
            parameter = getattr(module, name)
            master = nn.Parameter(parameter.detach().float().clone())
            setattr(module, name, master)
            own[id(master)] = parameter.dtype
    return own


def _replace(model: nn.Module, instead: dict[int, nn.Parameter]) -> None:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in instead:
                setattr(module, name, instead[id(parameter)])


def _rates(model: nn.Module, trained: dict[str, nn.Parameter]) -> dict[str, float]:
    rates = {}
    for name in trained:
        owner = model.get_submodule(name.rpartition(".")[0])
        rates[name] = float(getattr(owner, "recovery_rate", 1.0))
    return rates


def moving_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the buffers that training may move: running statistics, observed ranges; not the codes of tables."""
    still = {
        id(buffer) for module in model.modules() if hasattr(module, "recovers") for buffer in module.buffers()
    } | {id(buffer) for buffer in model.buffers() if not buffer.numel()}
    for name, buffer in model.named_buffers():
        if id(buffer) not in still:
            yield name, buffer


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether a model keeps running statistics of its batches."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            return True
        if isinstance(module, TracedModel):
            nodes = module.body.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
            if nodes:
                return True
    return False
