"""What a quantised model would give if nothing were rounded: the measure of how much rounding moves its outputs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from flyweight.graph.quantize_ops import dynamic_linear, quantize_dequantize, quantize_dequantize_blocks, stored


class Unrounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, the operators that round let their input pass; `rounds` says whether any was met.

    Example:
        >>> with Unrounded(), torch.no_grad():
        ...     quantize_dequantize(torch.tensor([0.4]), torch.tensor(1.0))
        tensor([0.4000])
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rounds = False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call an operator, or what it would do without rounding."""
        exact = _EXACT.get(func)
        if exact is None:
            return func(*args, **(kwargs or {}))
        self.rounds = True
        return exact(*args, **(kwargs or {}))


def _passed(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x.clone()


def _linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(x, weight * scale.unsqueeze(1), bias)


_EXACT: dict[Any, Callable[..., Tensor]] = {
    quantize_dequantize._opoverload: _passed,
    quantize_dequantize_blocks._opoverload: _passed,
    stored._opoverload: _passed,
    dynamic_linear._opoverload: _linear,
}
