"""Small networks, each with one way in which layers depend on each other's widths."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.zoo.models.dcnv2 import DCNv2
from flyweight.zoo.models.lenet import LeNet300100
from flyweight.zoo.models.resnet import ResNet
from flyweight.zoo.models.sasrec import SASRec


class ConcatIntoLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(5, 6), nn.Linear(5, 4), nn.Linear(15, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.left(x).relu(), x, self.right(x).tanh()], 1))


class FlattenIntoLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6)
        self.extra, self.head = nn.Linear(3, 4), nn.Linear(6 * 4 + 4, 3)

    def forward(self, image: Tensor, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(F.relu(self.norm(self.conv(image))), 3)  # (rows, 6, 2, 2)
        return self.head(torch.cat([pooled.flatten(1), self.extra(x)], 1))


class Gated(nn.Module):
    """Halves taken by chunk, by slices and by glu."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(5, 12), nn.Linear(6, 8), nn.Linear(4, 10)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.first(x).chunk(2, dim=-1)
        y = self.second(value * gate.sigmoid())
        y = self.third(y[:, :4] * F.silu(y[:, 4:]))
        return self.head(F.glu(y))


class UnevenSplit(nn.Module):
    """One layer's outputs go three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 10), nn.Linear(6, 2)
        self.one, self.other = nn.Linear(3, 4), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.first(x).relu().split([3, 5, 2], dim=1)
        return self.head(torch.cat([self.one(a) + self.other(b), c], 1))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 + 3 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(4 + 3 * i, 3, 3, padding=1, bias=False) for i in range(3))
        self.head = nn.Linear(13, 3)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class MobileNet(nn.Module):
    """Inverted bottleneck with a depthwise convolution and squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.deep = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, 2, 1, groups=8)
        self.norm, self.narrow, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.Linear(4, 3)
        self.squeeze, self.excite = nn.Linear(8, 3), nn.Linear(3, 8)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        y = F.hardswish(self.norm(self.deep(F.relu6(self.wide(x)))))
        y = y * self.excite(self.squeeze(y.mean((2, 3))).relu()).sigmoid()[:, :, None, None]
        return self.head((self.narrow(y) + F.avg_pool2d(x, 2)).mean([2, 3]))


class GroupedConv(nn.Module):
    """Few wide groups (ResNeXt), many narrow ones, a depthwise multiplier, and group norm of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 12, 3, groups=2)
        self.narrow = nn.Conv2d(12, 8, 1, groups=4)
        self.many, self.norm = nn.Conv2d(8, 16, 1, groups=8), nn.GroupNorm(8, 16)
        self.up, self.head = nn.ConvTranspose2d(16, 6, 2, stride=2), nn.Linear(6, 3)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.narrow(F.relu(self.wide(F.relu(self.stem(image))))))
        return self.head(self.up(F.leaky_relu(self.norm(self.many(x)))).mean((2, 3)))


class UNet(nn.Module):
    """A step down and up again, with a transposed depthwise convolution, resizing and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(2, 4, 3, 1, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.up = nn.ConvTranspose2d(6, 6, 2, 2, groups=6)
        self.join, self.out = nn.Conv2d(10, 5, 3, 1, 1), nn.Conv2d(5, 2, 1)
        self.act = nn.PReLU(5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.down(image).relu()
        y = self.up(self.middle(x).relu())
        z = torch.cat([x, F.interpolate(F.interpolate(y, scale_factor=0.5), scale_factor=2.0)], 1)
        return self.out(F.pad(self.act(self.join(z)), (0, 0, 0, 0)))


class SharedTwice(nn.Module):
    """One layer called twice, so its inputs and outputs are one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.shared, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.shared(self.shared(self.inlet(x).relu()).relu()))


class TiedScoring(nn.Module):
    """Items are scored by the table they are looked up in, through a second name of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(9, 6)
        self.hidden, self.back = nn.Linear(6, 5), nn.Linear(5, 6)
        self.decoder = nn.Linear(6, 9)
        self.decoder.weight = self.items.weight

    def forward(self, item: Tensor) -> Tensor:
        return self.decoder(self.back(self.hidden(self.items(item)).relu()))


class JointAttention(nn.Module):
    """Attention written by hand, with query, key and value projected at once and heads made by view."""

    def __init__(self, order: str = "3hd") -> None:
        super().__init__()
        self.order = order
        self.inlet, self.joint, self.out = nn.Linear(3, 6), nn.Linear(6, 36), nn.Linear(12, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inlet(x)
        rows, length, _ = x.shape
        if self.order == "3hd":
            query, key, value = self.joint(x).view(rows, length, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            query, key, value = self.joint(x).view(rows, length, 4, 9).transpose(1, 2).chunk(3, dim=-1)
        weights = (query @ key.transpose(-2, -1) / 3**0.5).softmax(-1)  # (rows, heads, length, length)
        mixed = (weights @ value).transpose(1, 2).reshape(rows, length, -1)
        return self.head(x + self.out(mixed)).mean(1)


class LibraryAttention(nn.Module):
    """nn.MultiheadAttention puts rows and heads into one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.attention, self.head = nn.Linear(3, 8), nn.MultiheadAttention(8, 4), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inlet(x).transpose(0, 1)
        return self.head(self.attention(y, y, y)[0] + y).mean(0)


class Encoder(nn.Module):
    def __init__(self, dim: int = 8, hidden: int = 10, norm_first: bool = True) -> None:
        super().__init__()
        self.inlet = nn.Linear(3, dim)
        layer = nn.TransformerEncoderLayer(dim, 2, hidden, batch_first=True, norm_first=norm_first)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.inlet(x))[:, 0])


class Keras(nn.Module):
    """Kernels of shape (in, out), as Keras keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6))
        self.last, self.scale = nn.Parameter(torch.randn(6, 3)), nn.Buffer(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul((torch.matmul(x, self.kernel) + self.bias).relu() * self.scale, self.last)


class Interaction(nn.Module):
    """Dot products between fields (DLRM) and a factorisation machine, over embeddings of one width."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Embedding(7, 4), nn.EmbeddingBag(9, 4, mode="sum")
        self.dense, self.head = nn.Linear(3, 4), nn.Linear(13, 1)

    def forward(self, item: Tensor, tags: Tensor, x: Tensor) -> Tensor:
        fields = torch.stack([self.one(item), self.other(tags), self.dense(x)], 1)  # (rows, 3, 4)
        dots = fields @ fields.transpose(1, 2)  # (rows, 3, 3)
        machine = 0.5 * (fields.sum(1).square() - fields.square().sum(1))  # (rows, 4)
        return self.head(torch.cat([dots.flatten(1), machine], 1)).squeeze(1)


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.heads = nn.Linear(3, 6), nn.Parameter(torch.randn(4, 6, 5))
        self.out = nn.Parameter(torch.randn(4, 5, 2))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("bi,hio->bho", self.inlet(x), self.heads).relu()
        return torch.einsum("bho,hoc->bc", y, self.out)


class VisionTransformer(nn.Module):
    """Patches by convolution, a class token joined to them, attention with fewer keys than queries and rotations."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(2, 6, 4, 4), nn.Parameter(torch.randn(1, 1, 6))
        self.query, self.key, self.value = nn.Linear(6, 16, bias=False), nn.Linear(6, 8), nn.Linear(6, 8)
        self.turn, self.out = nn.Buffer(torch.randn(5, 4)), nn.Linear(16, 6)
        self.gamma, self.head = nn.Parameter(torch.rand(6)), nn.Linear(6, 3)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch(image).flatten(2).transpose(1, 2)  # (rows, 4, 6)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        query, key, value = (
            layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        query, key = (one * self.turn + torch.cat(one.chunk(2, -1)[::-1], -1) for one in (query, key))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return self.head((x + self.out(mixed.transpose(1, 2).flatten(2)) * self.gamma)[:, 0])


class Shuffled(nn.Module):
    """Channels shuffled between groups, the last dimension normed and mixed, pixels shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.group = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 1, groups=2)
        self.fine, self.wide = nn.Conv2d(8, 12, 1), nn.Linear(3, 6)
        self.narrow = nn.Linear(6, 3)

    def forward(self, image: Tensor) -> Tensor:
        x = self.group(self.stem(image))
        rows, channels, height, width = x.shape
        x = x.view(rows, 2, channels // 2, height, width).transpose(1, 2).reshape(rows, -1, height, width)
        y = F.pixel_shuffle(self.fine(x.relu()), 2).permute(0, 2, 3, 1)  # (rows, 2 height, 2 width, 3)
        return self.narrow(F.gelu(self.wide(y))).mean((1, 2))


class InterestNetwork(nn.Module):
    """DIN: a history weighed against an item, q, k, q - k and q * k side by side, one table for both."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.weigh, self.weight = nn.Embedding(9, 4, padding_idx=0), nn.Linear(16, 6), nn.Linear(6, 1)
        self.mlp = nn.Sequential(nn.Linear(8, 7), nn.PReLU(7), nn.Linear(7, 1))

    def forward(self, history: Tensor, item: Tensor) -> Tensor:
        key, one = self.items(history), self.items(item)
        query = one.unsqueeze(1).expand_as(key)
        both = torch.cat([query, key, query - key, query * key], -1)
        weights = self.weight(self.weigh(both).sigmoid()).masked_fill((history == 0).unsqueeze(-1), 0.0)
        return self.mlp(torch.cat([(weights * key).sum(1), one], -1)).squeeze(-1)


class Towers(nn.Module):
    """Two towers under a cosine, and a gate over experts."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(9, 5), nn.Linear(3, 6)
        self.experts = nn.ModuleList(nn.Linear(5, 6) for _ in range(3))
        self.gate = nn.Linear(5, 3)

    def forward(self, user: Tensor, x: Tensor) -> Tensor:
        known = self.user(user)
        experts = torch.stack([expert(known).relu() for expert in self.experts], 1)  # (rows, 3, 6)
        mixed = torch.einsum("re,red->rd", self.gate(known).softmax(-1), experts)
        item = self.item(x)
        return F.cosine_similarity(mixed, item, dim=1) + (F.normalize(mixed, dim=1) * F.normalize(item, dim=1)).sum(1)


class Products(nn.Module):
    """All products of two layers' outputs, flattened: only one of the two axes stays free."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(3, 4), nn.Linear(3, 5), nn.Linear(20, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.left(x).unsqueeze(2) * self.right(x).unsqueeze(1)).flatten(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items, self.cell, self.hidden = nn.Embedding(9, 4), nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, history: Tensor) -> Tensor:
        return self.head(self.hidden(self.cell(self.items(history))[0][:, -1]).relu())


class Case(NamedTuple):
    """A network, its inputs for a number of rows, and the sizes of its groups."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int], dict[str, Tensor]]
    groups: dict[str, int]


@functools.cache
def traced_case(name: str) -> TracedModel:
    """The network of a case, traced once for all tests, which leave it as it is."""
    torch.manual_seed(0)
    case = {**CASES, **NORMED}[name]
    return trace(case.make().eval(), case.inputs(4))


def flat(width: int) -> Callable[[int], dict[str, Tensor]]:
    return lambda rows: {"x": torch.randn(rows, width)}


def sequence(rows: int) -> dict[str, Tensor]:
    return {"x": torch.randn(rows, 5, 3)}


def image(size: int = 8, channels: int = 2) -> Callable[[int], dict[str, Tensor]]:
    return lambda rows: {"image": torch.randn(rows, channels, size, size)}


CASES: dict[str, Case] = {
    "lenet": Case(lambda: LeNet300100(64, (12, 7)), image(8, 1), {"layers.0": 12, "layers.2": 7}),
    "concat": Case(ConcatIntoLinear, flat(5), {"left": 6, "right": 4}),
    "flatten": Case(
        FlattenIntoLinear,
        lambda rows: {"image": torch.randn(rows, 2, 8, 8), "x": torch.randn(rows, 3)},
        {"conv": 6, "extra": 4},
    ),
    "gated": Case(Gated, flat(5), {"first": 6, "second": 4, "third": 5}),
    "split": Case(UnevenSplit, flat(4), {"first": 3, "first#2": 5, "first#3": 2, "one": 4}),
    "resnet": Case(
        lambda: ResNet(2, 3, (4, 6), blocks=2),
        image(),
        {"stem": 4, "stages.0.0.conv1": 4, "stages.0.1.conv1": 4}
        | {"stages.1.0.conv1": 6, "stages.1.0.conv2": 6, "stages.1.1.conv1": 6},
    ),
    "densenet": Case(DenseNet, image(), {"stem": 4, "convs.0": 3, "convs.1": 3, "convs.2": 3}),
    "mobilenet": Case(MobileNet, image(), {"stem": 4, "wide": 8, "squeeze": 3}),
    "grouped": Case(GroupedConv, image(), {"stem": 4, "wide": 2, "up": 6}),
    "unet": Case(UNet, image(), {"down": 4, "middle": 6, "join": 5}),
    "shared": Case(SharedTwice, flat(4), {"inlet": 6}),
    "tied": Case(TiedScoring, lambda rows: {"item": torch.randint(0, 9, (rows,))}, {"items": 6, "hidden": 5}),
    "joint": Case(JointAttention, sequence, {"inlet": 6, "joint": 4}),
    "heads first": Case(lambda: JointAttention("h3d"), sequence, {"inlet": 6, "joint": 4}),
    "library attention": Case(LibraryAttention, sequence, {"inlet": 8, "attention": 4}),
    "keras": Case(Keras, flat(4), {"kernel": 6}),
    "interaction": Case(
        Interaction,
        lambda n: {"item": torch.randint(0, 7, (n,)), "tags": torch.randint(0, 9, (n, 3)), "x": torch.randn(n, 3)},
        {"one": 4},
    ),
    "einsum": Case(Einsum, flat(3), {"inlet": 6, "heads": 4, "heads#2": 5}),
    "dcnv2": Case(
        lambda: DCNv2({"user": 9, "item": 7}, dim=4, hidden=(6, 5), init_std=1.0),
        lambda rows: {"user": torch.randint(0, 9, (rows,)), "item": torch.randint(0, 7, (rows,))},
        {"tables.user": 4, "tables.item": 4, "mlp.0": 6, "mlp.2": 5},
    ),
    "vision transformer": Case(VisionTransformer, image(), {"patch": 6, "query": 2}),
    "shuffled": Case(Shuffled, image(4), {"stem": 4, "group": 4, "fine": 3, "wide": 6}),
    "interest": Case(
        InterestNetwork,
        lambda rows: {"history": torch.randint(0, 9, (rows, 5)), "item": torch.randint(0, 9, (rows,))},
        {"items": 4, "weigh": 6, "mlp.0": 7},
    ),
    "towers": Case(
        Towers,
        lambda rows: {"user": torch.randint(0, 9, (rows,)), "x": torch.randn(rows, 3)},
        {"user": 5, "experts.0": 6},
    ),
    "products": Case(Products, flat(3), {"right": 5}),
    "recurrent": Case(Recurrent, lambda rows: {"history": torch.randint(0, 9, (rows, 4))}, {"hidden": 6}),
}
#: Networks with a norm that takes its mean over what is cut, and the groups that it does not cross.
NORMED: dict[str, Case] = {
    "encoder": Case(
        Encoder,
        sequence,
        {"layers.layers.0.self_attn": 2, "layers.layers.0.linear1": 10}
        | {"layers.layers.1.self_attn": 2, "layers.layers.1.linear1": 10},
    ),
    "sasrec": Case(
        lambda: SASRec(9, 4, 6, 1, 3, 7),
        lambda rows: {"history": torch.randint(0, 9, (rows, 4))},
        {"blocks.0.attention.query": 3, "blocks.0.mlp.0": 7},
    ),
}
