"""What everybody else does to embedding tables: each row as scalars of b bits with a scale and a bias of its own.

FBGEMM's row-wise formats, the ones TorchRec and TorchEasyRec serve: int8 with float32 scale and bias (8 bytes a row),
int4 and int2 with float16 scale and bias (4 bytes a row).
"""

import copy
import time
from collections.abc import Iterator

import fbgemm_gpu  # noqa: F401  (registers the operators)
import torch
from torch import Tensor, nn


def rowwise(weight: Tensor, bits: int) -> tuple[Tensor, int]:
    """Return a table quantised row by row and read back, and the bytes of the quantised rows."""
    ops = torch.ops.fbgemm
    if bits == 8:
        packed = ops.FloatToFused8BitRowwiseQuantized(weight)
        return ops.Fused8BitRowwiseQuantizedToFloat(packed), packed.numel()
    packed = ops.FloatToFusedNBitRowwiseQuantizedSBHalf(weight, bits)
    return ops.FusedNBitRowwiseQuantizedSBHalfToFloat(packed, bits), packed.numel()


def peers(model: nn.Module) -> Iterator[tuple[str, nn.Module, int, float]]:
    """Yield name, model with every table quantised and read back, bytes of its tables, seconds it took."""
    for bits in (8, 4, 2):
        copied, total, started = copy.deepcopy(model), 0, time.perf_counter()
        for module in copied.modules():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                rows, size = rowwise(module.weight.detach(), bits)
                module.weight = nn.Parameter(rows, requires_grad=False)
                total += size
        yield f"row-wise int{bits} (FBGEMM)", copied, total, time.perf_counter() - started
