"""A call of fixed shapes as one CUDA graph: all its kernels are launched at once."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

#: Calls before the capture: kernels are compiled and chosen in them, which a capture must not see.
WARM_UP = 3


class Graphed:
    """A captured call.

    It reads inputs from memory of its own, where each call copies them first (CUDA C++ Programming Guide, section CUDA
    Graphs; torch.cuda.CUDAGraph).

    Args:
        call: takes tensors on the device and returns one; must not wait for the device.
        tensors: inputs of the shapes that it will be replayed with.
    """

    def __init__(self, call: "Callable[..., Tensor]", tensors: "tuple[Tensor, ...]") -> None:
        import torch

        self._call = call  # a graph holds addresses only: what it reads must outlive it
        self._inputs = tuple(tensor.clone() for tensor in tensors)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.inference_mode():
            for _ in range(WARM_UP):
                call(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph), torch.inference_mode():
            self._scores = call(*self._inputs)

    def __call__(self, tensors: "tuple[Tensor, ...]") -> "Tensor":
        """Return the scores of these inputs; the next call writes over them."""
        for mine, given in zip(self._inputs, tensors, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._scores
