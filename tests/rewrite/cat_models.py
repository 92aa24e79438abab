"""Models that put values of both sides side by side, written as people write them: nothing is made for hoisting."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from flyweight.graph.quantize_ops import quantize_dequantize, stored

DIM = 4
ROWS = {"user": 9, "city": 7, "item": 11, "shop": 6, "word": 8}


class Fields(nn.Module):
    """Embeddings of the fields in an order, and what `read` makes of their list."""

    def __init__(self, read: Callable[[nn.Module, list[Tensor]], Tensor], order: tuple[str, ...] = tuple(ROWS)) -> None:
        super().__init__()
        self.read, self.order = read, order
        self.tables = nn.ModuleDict({name: nn.Embedding(ROWS[name], DIM) for name in ROWS})
        wide = len(order) * DIM
        self.square = nn.Linear(wide, wide)
        self.wide, self.pair = nn.Linear(wide, 3), nn.Linear(len(order) ** 2, 3)
        self.triangle = nn.Linear(len(order) * (len(order) - 1) // 2, 3)
        left, right = torch.tril_indices(len(order), len(order), offset=-1)
        self.register_buffer("left", left)
        self.register_buffer("right", right)
        self.register_buffer("flat", left * len(order) + right)
        self.register_buffer("step", torch.tensor(0.05))
        self.register_buffer("steps", torch.full((len(order) ** 2,), 0.05))
        self.register_buffer("each", torch.linspace(-1, 1, wide))

    def forward(self, user: Tensor, city: Tensor, item: Tensor, shop: Tensor, word: Tensor) -> Tensor:
        ids = {"user": user, "city": city, "item": item, "shop": shop, "word": word}
        return self.read(self, [self.tables[name](ids[name]) for name in self.order])


def picked(v: Tensor) -> Tensor:
    return v[:, 1] * v[:, -1] + v.select(1, 0)


def crossed(m: nn.Module, x: Tensor) -> Tensor:
    return (x * m.square(x) + x).exp().sum(1)


def dots(v: Tensor) -> Tensor:
    return torch.bmm(v, v.transpose(1, 2))


#: What is read -> the rules that must have been applied.
READS: dict[str, tuple[Callable[..., Tensor], set[str]]] = {
    "stack, flat": (lambda m, v: m.wide(torch.stack(v, 1).flatten(1)).sum(1), {"stack as cat", "distribute cat"}),
    "cat of cats": (
        lambda m, v: m.wide(torch.cat([torch.cat(v[:4], 1).relu(), v[4]], -1)).sum(1),
        {"distribute cat", "nested cats"},
    ),
    "sum": (lambda m, v: torch.stack(v, 1).sum(1).square().sum(1), {"sum of cat"}),
    "sum of squares": (lambda m, v: torch.stack(v, 1).square().sum((1, 2)), {"distribute cat", "sum of cat"}),
    "mean": (lambda m, v: torch.stack(v, 1).mean(1, keepdim=True).squeeze(1).prod(1), {"sum of cat"}),
    "sum over the width first": (lambda m, v: torch.stack(v, 1).sum(-1).sum(1), {"distribute cat", "sum of cat"}),
    "sum of columns": (lambda m, v: torch.cat(v, 1).view(-1, len(v), DIM).sum(1).exp().sum(1), {"sum of cat"}),
    "turned": (lambda m, v: torch.stack(v, 1).transpose(1, 2).sum(2).prod(1), {"distribute cat", "sum of cat"}),
    "activations": (
        lambda m, v: m.wide(torch.sigmoid(torch.cat(v, 1) * 2 + 1).pow(3)).sum(1),
        {"distribute cat", "split linear"},
    ),
    "constants": (
        lambda m, v: m.wide((1 - torch.cat(v, 1)) * m.each + m.each).sum(1),
        {"distribute cat", "split linear"},
    ),
    "rounded": (
        lambda m, v: m.wide(quantize_dequantize(torch.cat(v, 1), m.step)).sum(1),
        {"distribute cat", "split linear"},
    ),
    "stored": (lambda m, v: m.wide(stored(torch.cat(v, 1), "bfloat16")).sum(1), {"distribute cat", "split linear"}),
    "all dots": (
        lambda m, v: m.pair(dots(torch.stack(v, 1)).flatten(1)).sum(1),
        {"pairwise dots", "late select", "split linear"},
    ),
    "a triangle of dots": (
        lambda m, v: m.triangle(dots(torch.stack(v, 1))[:, m.left, m.right]).sum(1),
        {"pairwise dots", "split linear"},
    ),
    "a triangle of flat dots": (
        lambda m, v: m.triangle(
            dots(torch.cat(v, 1).view(-1, len(v), DIM)).flatten(1)[:, m.flat].relu()
        ).sum(1),
        {"pairwise dots", "split linear"},
    ),
    "dots beside vectors": (
        lambda m, v: m.triangle(
            torch.cat([torch.stack(v, 1).flatten(1)[:, :0], dots(torch.stack(v, 1))[:, m.right, m.left]], 1)
        ).sum(1),
        {"pairwise dots"},
    ),
}

READS |= {
    "two groups of columns": (
        lambda m, v: torch.cat(v, 1)[:, : 2 * DIM].prod(1) + torch.cat(v, 1)[:, DIM // 2 : -DIM].sum(1),
        {"slice of cat"},
    ),
    "split": (
        lambda m, v: sum(one.prod(1) for one in torch.cat(v, 1).split([DIM, 2 * DIM, 2 * DIM], 1)),
        {"slice of cat"},
    ),
    "chunks": (lambda m, v: sum(one.prod(1) for one in torch.cat(v, 1).chunk(5, -1)), {"slice of cat"}),
    "unbind": (lambda m, v: sum(one.prod(1) for one in torch.stack(v, 1).unbind(1)), {"slice of cat"}),
    "single vectors": (lambda m, v: picked(torch.stack(v, 1)).prod(1), {"slice of cat"}),
}


class Columns(nn.Module):
    """Inputs of several widths side by side, and a sum of what several readers make of them."""

    def __init__(self, widths: dict[str, int], readers: list[str]) -> None:
        super().__init__()
        self.readers, total = readers, sum(widths.values())
        self.layer, self.other = nn.Linear(total, 5), nn.Linear(total + 5, 2)
        self.square = nn.Linear(total, total)
        self.register_buffer("each", torch.randn(total))
        self.half = max(1, total // 2)

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor) -> Tensor:
        x = torch.cat([a, b, c, d, e], dim=-1)
        read = {
            "layer": lambda: self.layer(x),
            "relu": lambda: self.layer((x * self.each).relu()),
            "sum": lambda: x.sum(-1, keepdim=True),
            "squares": lambda: x.pow(2).mean(1, keepdim=True),
            "slice": lambda: x[:, self.half :].exp(),
            "nested": lambda: self.other(torch.cat([self.layer(x), x], 1)),
            "cross": lambda: x * self.square(x) + x,
            "whole": lambda: x.softmax(-1),
        }
        return torch.stack([read[name]().sum(1) for name in self.readers], 1).sum(1)


def read_twice(m: nn.Module, dots: Tensor) -> Tensor:
    return m.triangle(dots[:, m.left, m.right]).sum(1) + dots.exp().sum((1, 2))


def summed_twice(v: Tensor) -> Tensor:
    first = v.sum(1)
    return first.sum(1) * first.prod(1)


def crossed_twice(m: nn.Module, x: Tensor) -> Tensor:
    y = m.square(x.softmax(1))
    return (x * y + x + y).exp().sum(1)
