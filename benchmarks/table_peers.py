"""What everybody else does to embedding tables: each row as scalars of b bits with a scale and a bias of its own.

FBGEMM's row-wise formats, the ones TorchRec and TorchEasyRec serve: int8 with float32 scale and bias (8 bytes a row),
int4 and int2 with float16 scale and bias (4 bytes a row). The greedy search of ranges is that of PyTorch's own bags.
"""

import copy
import time
from collections.abc import Iterator

import fbgemm_gpu  # noqa: F401  (registers the operators)
import torch
from torch import Tensor, nn

from flyweight.tables.recalibration import fit_like, fold
from flyweight.task.task import Task


def rowwise(weight: Tensor, bits: int, *, greedy: bool = False) -> tuple[Tensor, int]:
    """Return a table quantised row by row and read back, and the bytes of the quantised rows.

    Args:
        greedy: search each row's range for the least squared error (Guan et al. 2019, arXiv 1911.02079).
    """
    ops, torch_ops = torch.ops.fbgemm, torch.ops.quantized
    if bits == 8:
        packed = ops.FloatToFused8BitRowwiseQuantized(weight)
        return ops.Fused8BitRowwiseQuantizedToFloat(packed), packed.numel()
    if greedy:
        packed = getattr(torch_ops, f"embedding_bag_{bits}bit_prepack")(weight, True)
        return getattr(torch_ops, f"embedding_bag_{bits}bit_unpack")(packed), packed.numel()
    packed = ops.FloatToFusedNBitRowwiseQuantizedSBHalf(weight, bits)
    return ops.FusedNBitRowwiseQuantizedSBHalfToFloat(packed, bits), packed.numel()


Peer = tuple[str, nn.Module, int, float]


def quantised(model: nn.Module, name: str, bits: int, *, greedy: bool = False) -> Peer:
    """Return name, a copy of a model with every table quantised and read back, its tables' bytes, seconds it took."""
    copied, total, started = copy.deepcopy(model), 0, time.perf_counter()
    for module in copied.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            rows, size = rowwise(module.weight.detach(), bits, greedy=greedy)
            module.weight = nn.Parameter(rows, requires_grad=False)
            total += size
    return name, copied, total, time.perf_counter() - started


def peers(task: Task) -> Iterator[Peer]:
    """Yield the formats as they are, with the greedy search, and the smallest with the recalibration that ours get."""
    for bits in (8, 4, 2):
        yield quantised(task.model, f"row-wise int{bits} (FBGEMM)", bits)
    for bits in (4, 2):
        words = f"row-wise int{bits}, greedy ranges (torch)"
        name, model, size, seconds = quantised(task.model, words, bits, greedy=True)
        yield name, model, size, seconds
    yield f"{name}, recalibrated as ours", recalibrated(task, model), size, seconds


def recalibrated(task: Task, model: nn.Module) -> nn.Module:
    """Return a model with a scale and a bias of the logit fitted on validation data, as compressed models get."""
    before, after = task.scores("validation"), task.scores("validation", model)
    inputs, _, _ = next(task.batches("validation"))
    return fold(model, fit_like(task, before.outputs, after.outputs, after.targets), inputs)[0]
