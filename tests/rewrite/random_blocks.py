"""Blocks of recommenders in the forms that people write them in: attention, products, crosses, machines."""

from collections.abc import Callable

from drawn_model import IDS, STEPS, WIDTHS, Builder, Shape
from random_operators import flat

_SUMMED = (
    "({w}.unsqueeze(-1) * {k}).sum(1)",
    "torch.einsum('nt,ntd->nd', {w}, {k})",
    "({w}[:, None] @ {k})[:, 0]",
    "torch.bmm({w}.unsqueeze(1), {k}).squeeze(1)",
)
_MATCHED = (
    "({k} * {q}.unsqueeze(1)).sum(-1)",
    "torch.einsum('nd,ntd->nt', {q}, {k})",
    "({q}[:, None] @ {k}.mT)[:, 0]",
    "torch.bmm({k}, {q}.unsqueeze(2)).squeeze(2)",
    "torch.einsum('ntd,nd->nt', {k}, {q})",
)
_MASKED = ("{w}.masked_fill({there} == 0, -1e9)", "{w} * ({there} != 0)", "torch.where({there} > 0, {w}, -1e9)")


def _fits(*shape: int) -> Callable[[Shape], bool]:
    return lambda other: other == shape


def perceptron(b: Builder) -> None:
    """Two layers with an activation, perhaps beside a residual."""
    if x := b.pick(1, 2):
        n, hidden = b.shapes[x][-1], b.choose(WIDTHS)
        act = b.choose(("ReLU", "Sigmoid", "GELU", "PReLU"))
        net = b.layer(f"nn.Sequential(nn.Linear({n}, {hidden}), nn.{act}(), nn.Dropout(0.1), nn.Linear({hidden}, {n}))")
        b.add(b.shapes[x], "{net}({x})", "{x} + {net}({x})", net=net, x=x)


def matrices(b: Builder) -> None:
    """Multiply matrices that each row has."""
    if x := b.pick(2):
        t, n = b.shapes[x]
        y = b.pick(2, fits=lambda one: one[1] == n) or x
        s = b.shapes[y][0]
        forms = ("torch.bmm({x}, {y}.transpose(1, 2))", "torch.einsum('ntd,nsd->nts', {x}, {y})", "{x} @ {y}.mT")
        b.add((t, s), *forms, "torch.matmul({y}, {x}.transpose(-1, -2)).mT", x=x, y=y)


def matched(b: Builder) -> None:
    """Multiply each step by a vector, or sum the steps up with weights."""
    if k := b.pick(2):
        t, n = b.shapes[k]
        if q := b.pick(1, fits=_fits(n)):
            b.add((t,), *_MATCHED, k=k, q=q)
        if w := b.pick(1, fits=_fits(t)):
            b.add((n,), *_SUMMED, k=k, w=w)


def dots(b: Builder) -> None:
    """Multiply two vectors: to a number, or all pairs of theirs."""
    if x := b.pick(1):
        (n,) = b.shapes[x]
        y, z = b.pick(1, fits=_fits(n)), b.pick(1)
        forms = ("({x} * {y}).sum(-1)", "torch.einsum('nd,nd->n', {x}, {y})", "F.cosine_similarity({x}, {y}, eps=1.0)")
        if b.either():
            b.add((), *forms, x=x, y=y)
        else:
            m = b.shapes[z or ""][0]
            b.add((n, m), "torch.einsum('nd,ne->nde', {x}, {z})", "{x}.unsqueeze(2) * {z}.unsqueeze(1)", x=x, z=z)


def attention(b: Builder) -> None:
    """Weights of the steps, by softmax or as they are, and their sum."""
    if k := b.pick(2):
        t, n = b.shapes[k]
        q = b.pick(1, fits=_fits(n)) or b.add((n,), "{k}.mean(1)", k=k)
        histories = [name for name, kind in b.inputs.items() if kind == "history" and t == STEPS]
        there = b.choose(histories) if histories and b.either() else ""
        kind = b.choose((_dot, _additive, _din, _fused))
        if kind is _fused:
            _fused(b, q, k, there)
            return
        w = kind(b, q, k)
        if there:
            w = b.add((t,), *_MASKED, w=w, there=there)
        if there or b.either():
            w = b.add((t,), "{w}.softmax(1)", "torch.softmax({w}, dim=-1)", w=w)
        b.add((n,), *_SUMMED, w=w, k=k)


def _dot(b: Builder, q: str, k: str) -> str:
    return b.add(b.shapes[k][:1], *_MATCHED, q=q, k=k)


def _additive(b: Builder, q: str, k: str) -> str:
    t, n = b.shapes[k]
    late, early = "{layer}({q}).unsqueeze(1)", "{layer}({q}[:, None].expand_as({k}))"
    forms = (f"torch.tanh({late} + {{k}}).sum(-1)", f"torch.relu({early} + {{k}}).mean(2)")
    return b.add((t,), *forms, layer=b.layer(f"nn.Linear({n}, {n})"), q=q, k=k)


def _din(b: Builder, q: str, k: str) -> str:
    t, n = b.shapes[k]
    forms = (
        "{q}.unsqueeze(1).expand(-1, {t}, -1)",
        "{q}[:, None].repeat(1, {t}, 1)",
        "{q}.unsqueeze(1).expand_as({k})",
    )
    q = b.add((t, n), *forms, q=q, k=k, t=t)
    x = ", ".join(parts := b.some([q, k, f"{q} - {k}", f"{q} * {k}", f"{k} - {q}", f"{q} + {k}"], 2, 4))
    first, last = b.layer(f"nn.Linear({n * len(parts)}, 3)"), b.layer(f"nn.Linear(3, 1, bias={b.either()})")
    hidden = [f"torch.{act}({first}(torch.cat([{x}], -1)))" for act in ("sigmoid", "relu", "tanh")]
    return b.add((t,), *(f"{last}({one}).squeeze(-1)" for one in hidden))


def _fused(b: Builder, q: str, k: str, there: str) -> None:
    mask = f", attn_mask={there}[:, None] > 0" if there else ""
    b.add(b.shapes[q], f"F.scaled_dot_product_attention({q}.unsqueeze(1), {k}, {k}{mask}).squeeze(1)")


def dlrm(b: Builder) -> None:
    """Products of vectors with each other, those of some pairs, and mostly a layer that reads them."""
    n = b.choose(WIDTHS)
    values = [*b.several(_fits(n), 0), *(_projected(b, n, x) for x in b.some(list(b.shapes)[: len(b.inputs)], 2, 3))]
    count, side = len(values), ", ".join(values)
    forms = ("torch.stack([{side}], 1)", "torch.cat([{side}], 1).view(-1, {count}, {n})")
    z = b.add((count, n), *forms, side=side, count=count, n=n)
    pairs = _below(count) if b.either() else b.some(_pairs(count), 1, 6)
    x = b.choose((_picked, _gathered))(b, z, pairs)
    if b.number(0, 3):
        x = b.add((len(pairs),), *("{x}", "torch.relu({x})") if b.either() else ("{x} * 0.5",), x=x)
        width = b.choose(WIDTHS)
        b.add((width,), "{layer}({x})", layer=b.layer(f"nn.Linear({len(pairs)}, {width})"), x=x)


def _projected(b: Builder, n: int, x: str) -> str:
    x = flat(b, x)
    return b.add((n,), "{layer}({x})", layer=b.layer(f"nn.Linear({b.shapes[x][0]}, {n})"), x=x)


def _picked(b: Builder, z: str, pairs: list[tuple[int, int]]) -> str:
    """Multiply all vectors by all, and take some of the products."""
    count = b.shapes[z][0]
    forms = ("torch.bmm({z}, {z}.transpose(1, 2))", "{z} @ {z}.mT", "torch.einsum('nid,njd->nij', {z}, {z})")
    p = b.add((count, count), *forms, z=z)
    left, right = ([pair[at] for pair in pairs] for at in (0, 1))
    places = [i * count + j for i, j in pairs]
    return b.add((len(pairs),), f"{p}[:, {left}, {right}]", f"{p}.flatten(1)[:, {places}]")


def _gathered(b: Builder, z: str, pairs: list[tuple[int, int]]) -> str:
    """Take the vectors of some pairs, and multiply them."""
    left, right = ([pair[at] for pair in pairs] for at in (0, 1))
    products = f"{z}[:, {left}] * {z}[:, {right}]"
    return b.add((len(pairs),), f"({products}).sum(2)", f"({products}).sum(-1)")


def _pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(count)]


def _below(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(i)]


def machine(b: Builder) -> None:
    """A factorisation machine: the square of a sum without the sum of squares."""
    if x := b.pick(2):
        n = b.shapes[x][1]
        squares = ("{x}.square().sum(1)", "({x} * {x}).sum(1)", "{x}.pow(2).sum(dim=1)")
        y = b.add((n,), *(f"0.5 * ({{x}}.sum(1) ** 2 - {one})" for one in squares), x=x)
        if b.either():
            b.add((), "{y}.sum(-1)", y=y)


def cross(b: Builder) -> None:
    """One or two cross layers, of full or low rank."""
    if x := b.pick(1):
        first, (n,) = x, b.shapes[x]
        low = f"nn.Sequential(nn.Linear({n}, 2, bias=False), nn.Linear(2, {n}))"
        for _ in range(b.number(1, 2)):
            layer = b.layer(low if b.either() else f"nn.Linear({n}, {n})")
            x = b.add((n,), f"{first} * {layer}({x}) + {x}", f"{x} + {layer}({x}) * {first}")


def bag(b: Builder) -> None:
    """Sum or mean of a history's vectors by one operator."""
    histories = [name for name, kind in b.inputs.items() if kind == "history"]
    if histories:
        n, mode, pad = b.choose(WIDTHS), b.choose(("sum", "mean")), b.choose((0, None))
        table = b.layer(f"nn.EmbeddingBag({IDS}, {n}, mode='{mode}', padding_idx={pad})")
        b.add((n,), "{table}({x})", table=table, x=b.choose(histories))
