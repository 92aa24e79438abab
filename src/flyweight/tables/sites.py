"""Where a model keeps its embedding tables, and which of them can be coded."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flyweight.tables.mapped import WideEmbedding
from flyweight.task.change import Skipped

STEP = "encode_tables"
#: A table of fewer rows holds nothing worth coding.
FEWEST_ROWS = 2
#: A raw parameter is named as uncovered when it is at least this share of the model's bytes.
WORTH_NAMING = 0.01


@dataclass(frozen=True, eq=False)
class Table:
    """One embedding table, however many modules look it up.

    Args:
        name: dotted path of the first module that holds it.
        modules: dotted paths of every module that holds it.
        weight: (rows, dim), the user's own tensor, never written to.
        wide: whether its lookups return float32, whatever it is stored in.
    """

    name: str
    modules: tuple[str, ...]
    weight: Tensor
    wide: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """What lookups return."""
        return torch.float32 if self.wide else self.weight.dtype

    @property
    def rows(self) -> int:
        """Size of the vocabulary."""
        return self.weight.shape[0]

    @property
    def dim(self) -> int:
        """Values a row."""
        return self.weight.shape[1]

    @property
    def bytes(self) -> int:
        """Bytes of the table as it stands."""
        return self.weight.numel() * self.weight.element_size()


def find_tables(model: nn.Module) -> tuple[tuple[Table, ...], tuple[Skipped, ...]]:
    """Return the tables that can be coded, and every other one with the reason why not."""
    holders: dict[int, list[str]] = defaultdict(list)
    modules = dict(model.named_modules())
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            holders[id(module.weight)].append(path)
    tables: list[Table] = []
    skipped: list[Skipped] = []
    strangers = _strangers(model)
    for paths in holders.values():
        members = [model.get_submodule(path) for path in paths]
        weight = members[0].weight
        assert isinstance(weight, Tensor)
        reasons = [reason for member in members if (reason := _refusal(member))]
        if id(weight) in strangers:
            reasons.append(f"its weight is shared with {strangers[id(weight)]}, which reads whole rows")
        if reasons:
            skipped.append(Skipped(paths[0], reasons[0], STEP))
        else:
            wide = isinstance(members[0], WideEmbedding)
            tables.append(Table(paths[0], tuple(paths), weight.detach(), wide))
    return tuple(tables), (*skipped, *_raw_tables(model, modules))


def _refusal(module: nn.Module) -> str | None:
    """Return why a module cannot be replaced by coded lookups, or None when it can."""
    if type(module) not in (nn.Embedding, nn.EmbeddingBag, WideEmbedding):
        return f"{type(module).__name__} is a subclass of an embedding with behaviour of its own"
    assert isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    if module.max_norm is not None:
        return f"max_norm={module.max_norm} rewrites rows while they are looked up"
    if isinstance(module, nn.EmbeddingBag) and module.mode == "max":
        return 'mode="max" is not linear in the rows'
    if module.weight.ndim != 2 or module.weight.shape[0] < FEWEST_ROWS or module.weight.shape[1] < 1:
        return f"its shape is {tuple(module.weight.shape)}; there is nothing to code"
    if not module.weight.is_floating_point():
        return f"its dtype is {module.weight.dtype}"
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has forward hooks, which a coded table would lose"
    return None


def _strangers(model: nn.Module) -> dict[int, str]:
    """Return parameters held by anything else than an embedding, by identity."""
    return {
        id(parameter): f"{path + '.' if path else ''}{name}"
        for path, module in model.named_modules()
        if not isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for name, parameter in module.named_parameters(recurse=False)
    }


def _raw_tables(model: nn.Module, modules: dict[str, nn.Module]) -> list[Skipped]:
    """Name large two-dimensional parameters that sit directly in a module of the user's own."""
    total = sum(parameter.numel() for parameter in model.parameters()) or 1
    found = []
    for path, module in modules.items():
        if type(module).__module__.startswith("torch.") or isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 2 and parameter.numel() >= WORTH_NAMING * total:
                where = f"{path}.{name}" if path else name
                shape = f"{parameter.shape[0]:,} x {parameter.shape[1]:,}"
                found.append(Skipped(where, f"a raw parameter of {shape}; only nn.Embedding and nn.EmbeddingBag", STEP))
    return found

