"""Tables in files mapped into memory: which they are, and lookups that widen rows of 16 bits, not the table."""

from pathlib import Path

import torch
from torch import Tensor, nn

MAPS = Path("/proc/self/maps")


class WideEmbedding(nn.Embedding):
    """An embedding of 16-bit rows that returns those looked up as float32."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the rows of `input`, any shape of whole numbers, as (*input.shape, dim) float32."""
        return super().forward(input).float()


def is_mapped(tensor: Tensor) -> bool:
    """Return whether a tensor lies in a file mapped into memory, as the system says; False where it does not say so.

    Such are what `safetensors.torch.load_file` gives, and `torch.from_numpy(np.load(path, mmap_mode="c"))`.
    """
    address = tensor.data_ptr()
    try:
        lines = MAPS.read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return False
    for line in lines:
        span, _, _, _, node, *_ = line.split()
        start, stop = (int(end, 16) for end in span.split("-"))
        if start <= address < stop:
            return node != "0"
    return False


def wide_lookups(module: nn.Embedding) -> WideEmbedding:
    """Return an embedding over the same 16-bit rows, none copied, that returns float32."""
    wide = WideEmbedding.__new__(WideEmbedding)
    wide.__dict__ = {**module.__dict__, "_parameters": dict(module._parameters)}
    return wide


def looked_up_wide(module: nn.Module) -> bool:
    """Return whether a table of 16 bits stays as it is, its rows widened when they are looked up."""
    if type(module) is not nn.Embedding or module.max_norm is not None:
        return False
    return module.weight.dtype in (torch.float16, torch.bfloat16) and is_mapped(module.weight)
