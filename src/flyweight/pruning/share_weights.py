"""The step that lets the weights of a layer share a few values: a codebook, and a code of a few bits a weight."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.distillation.recover import recover
from flyweight.errors import InputError
from flyweight.graph.sparse_weight import SparseWeight
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, tensor_of
from flyweight.pruning.calibration import first_inputs
from flyweight.pruning.masks import prunable_weights
from flyweight.pruning.sparse_packing import Coded, pack_weight, with_dense_weights, with_sparse_weights
from flyweight.tables.kmeans import assign, weighted_kmeans
from flyweight.task.change import Change, Skipped
from flyweight.task.progress import stage
from flyweight.task.task import Task

STEP = "share_weights"


@dataclass(frozen=True)
class ShareWeights:
    """Store each weight of linear and convolution layers as a code into a few values that its layer shares.

    The values are centroids of the layer's weights by k-means, trained further if there is a recovery (Han, Mao, Dally
    2016, "Deep Compression", arXiv 1510.00149, section 3). After `Prune(structured=False)` the zeros stay zeros. It
    makes the file smaller; engines compute with the same float32 numbers, at the same speed.

    Args:
        bits: of a code, 1 to 8; a layer has up to 2**bits - 1 values beside 0.
        recover: epochs in which the shared values learn from the original model; 0 for none.
        seed: of k-means and of recovery.

    Raises:
        InputError: a setting makes no sense.

    Example:
        >>> ShareWeights(bits=5).name
        'share_weights'
    """

    bits: int = 5
    recover: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 1 <= self.bits <= 8:
            raise InputError(f"ShareWeights bits must be a whole number from 1 to 8; seen {self.bits!r}.")
        number = isinstance(self.recover, (int, float)) and not isinstance(self.recover, bool)
        if not number or not 0 <= self.recover < float("inf"):
            raise InputError(f"ShareWeights recover must be a number of epochs, 0 for none; seen {self.recover!r}.")

    @property
    def name(self) -> str:
        """The step's name in recipes and reports."""
        return STEP

    def apply(self, task: Task) -> Change:
        """Return the task's model with shared values, and what was done and left.

        Raises:
            ExportError: the model cannot be traced; names the line.
        """
        return share_weights(task, self)


def share_weights(task: Task, settings: ShareWeights) -> Change:
    """Let weights share values; see `ShareWeights`."""
    before = trace(task.model, first_inputs(task))
    dense = with_dense_weights(before)
    packed: dict[str, SparseWeight] = {}
    skipped: list[Skipped] = []
    done: list[dict[str, Any]] = []
    names = prunable_weights(dense)
    with stage("Sharing values", total=len(names)) as work:
        for name in names:
            weight = tensor_of(dense.body, name).detach()
            module = pack_weight(shared(weight, settings.bits, seed=settings.seed))
            work.advance()
            if module is None:
                skipped.append(Skipped(name, "codes and codebook would take more bytes than the weights", STEP))
                continue
            packed[name] = module
            sizes = {"bytes_before": stored_bytes(before, name), "bytes_after": module.bytes()}
            done.append({"what": "weights", "name": name, "values": module.values.numel(), **sizes})
    if not packed:
        nothing = Skipped("the model", "it has no linear or convolution weight large enough to share values", STEP)
        return Change(STEP, task.model, asdict(settings), (), (*skipped, nothing))
    model: nn.Module = with_sparse_weights(dense, packed)
    interrupted = False
    if settings.recover:
        recovered = recover(task, model, epochs=settings.recover, seed=settings.seed)
        model, interrupted = recovered.model, recovered.interrupted
        standing = {"before": recovered.before.metric, "after": recovered.after.metric, "epochs": recovered.epochs}
        done.append({"what": "recovery", **standing})
    return Change(STEP, model, asdict(settings), tuple(done), tuple(skipped), interrupted=interrupted)


def shared(weight: Tensor, bits: int, *, seed: int = 0) -> Coded:
    """Return a weight as codes into its nearest centroids; what is 0 keeps code 0.

    Example:
        >>> coded = shared(torch.tensor([0.0, 1.0, 1.1, -2.0]), bits=2)
        >>> coded.codes.tolist().count(0), sorted(round(value, 2) for value in coded.codebook.tolist())
        (1, [-2.0, 0.0, 1.0, 1.1])
    """
    kept = weight[weight != 0].reshape(-1, 1)
    clusters = min((1 << bits) - 1, max(1, len(torch.unique(kept))))
    generator = torch.Generator().manual_seed(seed)
    centroids = weighted_kmeans(kept, torch.ones(len(kept)), clusters, generator) if len(kept) else torch.ones(1, 1)
    codes = torch.zeros(weight.shape, dtype=torch.int64)
    codes[weight != 0] = assign(kept, centroids).to(torch.int64) + 1
    return Coded(codes, torch.cat([torch.zeros(1), centroids[:, 0]]), bits)


def stored_bytes(traced: TracedModel, name: str) -> int:
    """Return the bytes that a weight takes in the file: packed where it is sparse, else dense."""
    path, _, last = name.rpartition(".")
    owner = getattr(traced.body.get_submodule(path), last)
    return owner.bytes() if isinstance(owner, SparseWeight) else owner.numel() * owner.element_size()
