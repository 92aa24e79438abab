"""The step that splits linear layers in two of low rank: fewer multiply-accumulates where no unit can be spared.

A layer whose every input and output is needed (DCN-V2's cross layers, whose outputs are added to and multiplied with
what came in) can be thin inside: `W x = U (V x)` with r inner numbers takes `r (in + out)` multiplications.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx

from flyweight.cost.macs import count_macs
from flyweight.errors import InputError
from flyweight.graph.tensors import put_tensor, read_tensor
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, clean, module_of, tensor_of
from flyweight.pruning.calibration import calibration_pieces, first_inputs
from flyweight.pruning.given_ranks import check_ranks, fitting_ranks
from flyweight.pruning.ranks import Split, choose_ranks, split_weight
from flyweight.rewrite import low_rank_products
from flyweight.rewrite.apply_rules import rewrite
from flyweight.task.change import Change, Skipped
from flyweight.task.progress import stage
from flyweight.task.task import Task

STEP = "factorize"
aten = torch.ops.aten
#: Relative to the mean second moment of a layer's inputs: what is added to each, so that inputs that never vary on
#: calibration rows are not free to be forgotten.
RIDGE = 1e-4


@dataclass(frozen=True)
class Factorize:
    """Split linear layers into pairs of low rank, the ranks chosen for all layers together, or given.

    Give exactly one of `max_macs` and `ranks`:

    Args:
        max_macs: multiply-accumulates of one row that may be left in the whole model.
        multiple: chosen ranks land on multiples of this.
        seed: of the calibration rows.
        force: keep the result even if it is slower.
        ranks: the rank of each layer that is split, by the layer's name ("mlp.0"), as `ranks_of` reads them off a
            change; all others stay whole.
        contract: sum products with split layers over their rank where that saves time, exactly; what follows then
            learns and rounds the summed form. It may take some multiply-accumulates more than `max_macs`
            (`rewrite/low_rank_products.py`).

    Raises:
        InputError: not exactly one of the two, or a number that is no whole one above 0.

    Example:
        >>> Factorize(max_macs=50_000).name
        'factorize'
    """

    max_macs: int | None = None
    multiple: int = 4
    seed: int = 0
    force: bool = False
    ranks: Mapping[str, int] | None = None
    contract: bool = False

    def __post_init__(self) -> None:
        if (self.max_macs is None) == (self.ranks is None):
            seen = "none" if self.ranks is None else f"both, max_macs={self.max_macs}"
            raise InputError(f"Factorize takes exactly one of max_macs= and ranks=; seen {seen}.")
        for name in ("max_macs", "multiple"):
            value = getattr(self, name)
            if value is None and name == "max_macs":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"Factorize {name} must be a whole number of at least 1; seen {value!r}.")
        if self.ranks is not None:
            object.__setattr__(self, "ranks", check_ranks(self.ranks))

    @property
    def name(self) -> str:
        """The step's name in recipes and reports."""
        return STEP

    def apply(self, task: Task) -> Change:
        """Return the task's model with linear layers split, and what was split and what was left.

        Raises:
            ExportError: the model cannot be traced; names the line.
            InputError: `max_macs` is below what the other layers and a rank of `multiple` everywhere take; `ranks`
                names no layer of the model, or a rank that saves nothing.
        """
        return factorize(task, self)


@dataclass(eq=False)
class _Layer:
    """A linear layer under way: its node, sums over calibration rows, and vectors that it takes for one row."""

    node: str
    weight: str
    inputs: Tensor
    felt: Tensor
    vectors: int = 1
    seen: int = 0

    @property
    def name(self) -> str:
        """Of the layer; of its weight where that is called something else."""
        return self.weight.removesuffix(".weight")


def factorize(task: Task, settings: Factorize) -> Change:
    """Split linear layers of a task's model; see `Factorize`.

    Each layer's `W` becomes the pair nearest to it in `E = mean |F^(1/2) (W - U V) x|^2`, where F holds the mean
    squared gradient of the loss by each output: a truncated singular value decomposition of `F^(1/2) W L` with `L L'`
    the second moments of x (without F: Wang et al. 2024, "SVD-LLM", arXiv 2403.07378, section 3.1). E is in the unit
    of the loss for every layer, so one price per multiply-accumulate sets all ranks.
    """
    inputs = first_inputs(task)
    traced = trace(task.model, inputs)
    before = count_macs(traced, inputs, len(next(iter(inputs.values())))).total
    layers, skipped = _layers(traced)
    recipe = {name: value for name, value in asdict(settings).items() if value is not None}
    if layers:
        with stage("Looking at what linear layers read", total=1) as work:
            _observe(task, traced, layers, settings.seed)
            work.advance()
    splits = {one.name: _split(traced, one) for one in layers}
    if settings.ranks is not None:
        ranks = fitting_ranks(settings.ranks, splits, skipped)
    else:
        ranks = _chosen(splits, settings, before)
    done = []
    for layer in layers:
        rank = ranks.get(layer.name)
        if rank is not None:
            done.append(_put(traced, layer, splits[layer.name], rank))
        elif settings.ranks is None:
            skipped.append(Skipped(layer.weight, "splitting it costs more than it saves elsewhere", STEP))
    if not done:
        return Change(STEP, task.model, recipe, (), tuple(skipped))
    clean(traced.body)
    traced.body.recompile()
    if not settings.contract:
        return Change(STEP, traced, recipe, tuple(done), tuple(skipped))
    contracted = rewrite(traced, (low_rank_products.RULE,), [inputs])
    done += [{"what": "contracted", "times": one.times} for one in contracted.done]
    return Change(STEP, contracted.model, recipe, tuple(done), tuple(skipped))


def ranks_of(change: Change) -> dict[str, int]:
    """Return the rank of each layer that was split: `Factorize(ranks=ranks_of(change))` splits them alike."""
    return {str(done["name"]): int(done["rank"]) for done in change.done if done["what"] == "low rank"}


def _chosen(splits: Mapping[str, Split], settings: Factorize, before: int) -> dict[str, int | None]:
    """Return the ranks of the least damage, None for layers that stay whole."""
    assert settings.max_macs is not None
    fixed = before - sum(split.full for split in splits.values())
    ranks = choose_ranks(splits, settings.max_macs - fixed, settings.multiple)
    if ranks is None:
        least = fixed + sum(min(one.cost(settings.multiple), one.full) for one in splits.values())
        raise InputError(
            f"Factorize max_macs={settings.max_macs:,} cannot be reached: ranks of {settings.multiple} in all "
            f"{len(splits)} linear layers leave {least:,} multiply-accumulates; give more, or prune units first."
        )
    return ranks


def _layers(traced: TracedModel) -> tuple[list[_Layer], list[Skipped]]:
    found, skipped = [], []
    for node in traced.body.graph.find_nodes(op="call_function", target=aten.linear.default):
        weight = node.args[1]
        if not isinstance(weight, fx.Node) or weight.op != "get_attr" or len(weight.users) != 1:
            why = "its weight is read in several places, or is no plain tensor"
            skipped.append(Skipped(module_of(node) or node.name, why, STEP))
            continue
        out, wide = tensor_of(traced.body, str(weight.target)).shape
        found.append(_Layer(node.name, str(weight.target), torch.zeros(wide, wide), torch.zeros(out)))
    return found, skipped


def _observe(task: Task, traced: TracedModel, layers: list[_Layer], seed: int) -> None:
    """Sum second moments of inputs and squared gradients by outputs over calibration rows."""
    watch = _Watch(traced.body, layers)
    for inputs, target in calibration_pieces(task, seed=seed):
        with torch.enable_grad():
            watch.felt.clear()
            outputs = watch.run(*(inputs[name] for name in traced.names))
            outputs = outputs.squeeze(1) if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs
            loss = task.row_loss(outputs, target).mean() * len(target)
            leaves = [leaf for _, leaf in watch.felt]
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        for (layer, leaf), gradient in zip(watch.felt, gradients, strict=True):
            vectors = leaf.numel() // leaf.shape[-1]
            layer.vectors = max(1, vectors // len(target))
            layer.seen += vectors
            if gradient is not None:
                layer.felt += gradient.reshape(vectors, -1).square().sum(0)


class _Watch(fx.Interpreter):
    """Runs a graph, sums what the layers read, and adds zeros to what they give, whose gradients are the outputs'."""

    def __init__(self, body: fx.GraphModule, layers: list[_Layer]) -> None:
        super().__init__(body)
        self.by_node = {one.node: one for one in layers}
        self.felt: list[tuple[_Layer, Tensor]] = []

    def run_node(self, n: fx.Node) -> Any:
        outputs = super().run_node(n)
        layer = self.by_node.get(n.name)
        if layer is None:
            return outputs
        assert isinstance(n.args[0], fx.Node)
        rows = self.env[n.args[0]].detach()
        rows = rows.reshape(-1, rows.shape[-1])
        layer.inputs += rows.T @ rows
        leaf = torch.zeros_like(outputs).requires_grad_(True)
        self.felt.append((layer, leaf))
        return outputs.detach() + leaf if not outputs.requires_grad else outputs + leaf


def _split(traced: TracedModel, layer: _Layer) -> Split:
    weight = tensor_of(traced.body, layer.weight).detach()
    seen = max(layer.seen, 1)
    return split_weight(weight, layer.inputs / seen, layer.felt / seen, layer.vectors, RIDGE)


def _put(traced: TracedModel, layer: _Layer, split: Split, rank: int) -> dict[str, Any]:
    """Put a layer's two halves in its place; the second keeps its name and bias."""
    node = next(one for one in traced.body.graph.nodes if one.name == layer.node)
    first, second = split.halves(rank)
    path, _, last = layer.weight.rpartition(".")
    inner = read_tensor(traced.body, f"{path}.inner.{last}" if path else f"inner_{last}", first, node)
    with traced.body.graph.inserting_before(node):
        thin = traced.body.graph.call_function(aten.linear.default, (node.args[0], inner))
    value = node.args[0].meta["val"]
    thin.meta = {**node.meta, "val": value.new_empty((*value.shape[:-1], rank))}
    put_tensor(traced.body, layer.weight, second)
    node.args[1].meta["val"] = torch.empty_like(second, device="meta")
    node.args = (thin, *node.args[1:])
    return {
        "what": "low rank",
        "name": layer.name,
        "rank": rank,
        "of": min(first.shape[1], second.shape[0]),
        "macs_before": split.full,
        "macs_after": split.cost(rank),
        "words": f"{second.shape[0]} x {first.shape[1]} as {second.shape[0]} x {rank} x {first.shape[1]}",
    }
