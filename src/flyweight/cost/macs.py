"""Multiply-accumulates of a model, by PyTorch's own counter, with every operator it has no formula for."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from flyweight.task.change import Skipped
from flyweight.task.scores import evaluating

aten = torch.ops.aten
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Macs:
    """Work of one row.

    Args:
        total: multiply-accumulates that were counted.
        by_operator: the same by operator ("addmm", "convolution"), largest first.
        skipped: operators that ran and have no formula, each with how often it ran and the reason.
    """

    total: int
    by_operator: dict[str, int]
    skipped: tuple[Skipped, ...]


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    queries, width = query[-2:]
    heads = math.prod(query[:-2])  # queries may have more heads than keys (grouped attention)
    return 2 * heads * queries * key[-2] * (width + value[-1])


def _matrix_vector(matrix: Shape, vector: Shape, *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _dot(left: Shape, right: Shape, *_: Any, **__: Any) -> int:
    return 2 * left[0]


#: Formulas (in FLOPs, from shapes) that PyTorch's registry lacks: CPU attention, matrix times vector, dot products.
EXTRA: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten.mv: _matrix_vector,
    aten.dot: _dot,
    aten.vdot: _dot,
}
#: Why an operator has no count, by its name; all others are "elementwise, or without a formula".
REASONS: dict[str, str] = {
    **dict.fromkeys(
        ("embedding", "_embedding_bag", "_embedding_bag_forward_only", "index", "index_select", "gather", "take"),
        "a gather: it moves bytes and multiplies next to nothing; see the latency instead",
    ),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), "a softmax: exponentials, not multiply-accumulates"),
    **dict.fromkeys(("sum", "mean", "amax", "amin", "cumsum", "prod"), "a reduction: additions, no multiplications"),
    **dict.fromkeys(("cat", "stack", "copy_", "clone", "_to_copy", "constant_pad_nd"), "moves data, no arithmetic"),
    "_trilinear": "a product of three tensors, for which there is no formula",
}
#: Operators that only make or describe tensors: no work worth a line.
FREE = frozenset(
    {"empty", "zeros", "ones", "full", "arange", "empty_like", "zeros_like", "ones_like", "new_empty", "new_zeros"}
    | {"lift_fresh", "scalar_tensor", "detach", "_local_scalar_dense", "_reshape_alias", "_unsafe_view"}
)


def count_macs(model: nn.Module, inputs: Mapping[str, Tensor], rows: int = 1) -> Macs:
    """Return the multiply-accumulates of one row: FLOPs of `torch.utils.flop_counter` / 2.

    Args:
        model: run once, in evaluation mode, as `model(**inputs)`.
        inputs: a batch; of one row, best, because what a model does once a call is shared out over the rows.
        rows: how many rows the batch holds.

    Example: `nn.Linear(100, 10)` costs 100 x 10 = 1,000 a row; its bias is an addition and costs none.
    """
    counter = FlopCounterMode(display=False, custom_mapping=EXTRA)
    seen = _Seen()
    with plain_kernels(), evaluating(model), torch.no_grad(), seen, counter:
        model(**inputs)
    flops = {_name(packet): count for packet, count in counter.get_flop_counts().get("Global", {}).items()}
    ordered = sorted(flops.items(), key=lambda item: -item[1])
    return Macs(
        total=sum(flops.values()) // (2 * rows),
        by_operator={name: count // (2 * rows) for name, count in ordered},
        skipped=tuple(_uncounted(seen.ran)),
    )


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Turn off fused kernels, oneDNN's LSTM and the transformer's fast path: they hide products from the counter."""
    onednn: Any = torch.backends.mkldnn
    fast_path, enabled = torch.backends.mha.get_fastpath_enabled(), onednn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    onednn.enabled = False
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        onednn.enabled = enabled


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own class is not typed
    """Lists the operators that run beneath the counter, after it took the composite ones apart."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ran: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not getattr(func, "is_view", False):
            self.ran[getattr(func, "_overloadpacket", func)] += 1
        return func(*args, **(kwargs or {}))


def _uncounted(ran: Counter[Any]) -> Iterable[Skipped]:
    for packet, times in ran.most_common():
        name = _name(packet)
        if packet in flop_registry or packet in EXTRA or name in FREE:
            continue
        why = REASONS.get(name, "elementwise, or an operator without a formula in torch.utils.flop_counter")
        yield Skipped(what=name if times == 1 else f"{name} ({times} times)", why=why, step="macs")


def _name(packet: Any) -> str:
    return str(packet).removeprefix("aten.")
