"""Operators that people write in recommenders, each put on values drawn at random; what cannot be does nothing."""

import math

from drawn_model import WIDTHS, Builder, Shape

_EACH = (
    "torch.relu({x})",
    "F.gelu({x})",
    "torch.sigmoid({x})",
    "torch.tanh({x})",
    "F.silu({x})",
    "F.leaky_relu({x}, 0.2)",
    "F.elu({x})",
    "-{x}",
    "{x}.abs()",
    "{x} * 0.5",
    "2 * {x}",
    "{x} + 1",
    "1 - {x}",
    "{x} - 0.5",
    "{x} / 3",
    "{x}.clamp(-1, 1)",
    "F.dropout({x}, 0.5, self.training)",
    "{x}.clone()",
    "{x}.detach()",
    "{x} + 0",
    "{x} * 1.0",
    "{x}.clamp(min=0)",
    "torch.tanh({x}).square()",
    "torch.sigmoid({x}) ** 3",
    "torch.exp(-{x}.abs())",
    "F.relu6({x})",
    "F.softplus({x})",
    "F.hardtanh({x})",
    "torch.log1p({x}.abs())",
    "1 / (1 + {x}.abs())",
    "({x} > 0) * {x}",
    "torch.where({x} > 0, {x}, 0.1 * {x})",
    "{x}.masked_fill({x} < 0, 0.5)",
    "F.mish({x})",
    "{x}.contiguous()",
)
_WHOLE = (
    "torch.softmax({x}, -1)",
    "{norm}({x})",
    "F.normalize({x}, dim=-1, eps=1.0)",
    "{x} - {x}.mean(-1, keepdim=True)",
    "F.layer_norm({x}, ({n},))",
    "{x}.softmax(1)",
    "{x}.cumsum(1)",
    "{x}.flip(1)",
    "F.log_softmax({x}, -1)",
)
_PAIRS = (
    "{x} + {y}",
    "{x} - {y}",
    "{x} * {y}",
    "torch.maximum({x}, {y})",
    "{x} / (1 + {y}.abs())",
    "{y} - {x}",
    "torch.where({x} > {y}, {x}, {y})",
    "torch.add({x}, {y}, alpha=2)",
    "({x} <= {y}) * {x}",
    "{x}.minimum({y})",
    "torch.sub({x}, {y}, alpha=0.5)",
    "torch.lerp({x}, {y}, 0.3)",
    "torch.addcmul({x} + 0 * {y}, {x}, {y})",
    "({x} - {y}).square()",
)
_MIXES = (
    "{x} - {x}.mean(0)",
    "{x}.softmax(0)",
    "{x}.cumsum(0)",
    "{x}.flip(0)",
    "{x} - {x}.mean()",
    "{x} + {x}[:1]",
    "{x} / (1 + {x}.abs().sum(0))",
    "{x}.roll(1, 0)",
    "{x} * {x}.amax(0, keepdim=True)",
    "{x}.sort(0).values",
)


def each(b: Builder) -> None:
    """Put a function on each number."""
    if x := b.pick():
        b.add(b.shapes[x], *_EACH, x=x)


def with_parameter(b: Builder) -> None:
    """Multiply by a parameter or add it: one for all, for each column, or for each number of a row."""
    if x := b.pick():
        shape = b.shapes[x]
        sizes = list(shape[b.number(0, len(shape)) :])
        p = b.layer(f"nn.Parameter(torch.randn({sizes}))")
        b.add(shape, "{x} * {p}", "{p} + {x}", "{x} - {p}", "{p} - {x}", x=x, p=p)


def whole_row(b: Builder) -> None:
    """Put a function on all numbers of a dimension."""
    if x := b.pick(1, 2):
        n = b.shapes[x][-1]
        b.add(b.shapes[x], *_WHOLE, x=x, n=n, norm=b.layer(f"nn.LayerNorm({n})"))


def batch_norm(b: Builder) -> None:
    """Normalise columns or channels, of what is flattened first or not."""
    if x := b.pick(1, 2):
        shape, affine = b.shapes[x], b.either()
        first, last = (b.layer(f"nn.BatchNorm1d({shape[at]}, affine={affine})") for at in (0, -1))
        flat = f"{last}({x}.reshape(-1, {shape[-1]})).view({x}.shape)"
        b.add(shape, f"{first}({x})", flat)


def prelu(b: Builder) -> None:
    """PReLU with one slope or one for each channel."""
    if x := b.pick(1, 2):
        layer = b.layer(f"nn.PReLU({b.choose((1, b.shapes[x][0]))})")
        b.add(b.shapes[x], "{layer}({x})", layer=layer, x=x)


def linear(b: Builder) -> None:
    """Put one layer on the last dimension, or several."""
    if x := b.pick(1, 2):
        *rest, n = b.shapes[x]
        width = b.choose(WIDTHS)
        for _ in range(b.number(1, 2)):
            b.add((*rest, width), "{layer}({x})", layer=b.layer(f"nn.Linear({n}, {width}, bias={b.either()})"), x=x)


def pair(b: Builder) -> None:
    """Put a function on two values that broadcast."""
    if x := b.pick():
        shape = b.shapes[x]
        y = b.pick(fits=lambda other: _broadcast(shape, other) is not None) or x
        b.add(_broadcast(shape, b.shapes[y]) or (), *_PAIRS, x=x, y=y)


def _broadcast(one: Shape, other: Shape) -> Shape | None:
    if len(one) != len(other) or any(a != b and 1 not in (a, b) for a, b in zip(one, other, strict=True)):
        return None
    return tuple(b if a == 1 else a for a, b in zip(one, other, strict=True))


def by_steps(b: Builder) -> None:
    """Let a vector meet each step, repeated or not, or a number of each step its vector."""
    if x := b.pick(2):
        t, n = shape = b.shapes[x]
        op = b.choose("*+-")
        if y := b.pick(1, fits=lambda one: one == (n,)):
            forms = (
                "{y}.unsqueeze(1)",
                "{y}[:, None].expand(-1, {t}, -1)",
                "{y}[:, None].repeat(1, {t}, 1)",
                "{y}.unsqueeze(1).expand_as({x})",
            )
            either = [form for one in forms for form in (f"{{x}} {op} {one}", f"{one} {op} {{x}}")]
            b.add(shape, *either, x=x, y=y, t=t)
        elif w := b.pick(1, fits=lambda one: one == (t,)):
            b.add(shape, f"{{x}} {op} {{w}}.unsqueeze(-1)", f"{{w}}.unsqueeze(2) {op} {{x}}", x=x, w=w)


def scaled(b: Builder) -> None:
    """Multiply by one number a row, or add it."""
    s, x = b.pick(0), b.pick(1, 2)
    if s and x:
        ones = ", ".join("1" * len(b.shapes[x]))
        forms = ("{x} * {s}.view(-1, {ones})", "{s}.reshape(-1, {ones}) + {x}", "{x} - {s}.view({s}.shape[0], {ones})")
        b.add(b.shapes[x], *forms, x=x, s=s, ones=ones)


def reduced(b: Builder) -> None:
    """Make one number of those of a dimension."""
    if x := b.pick(1, 2):
        shape = b.shapes[x]
        dim, kept = b.number(0, len(shape) - 1), b.either()
        left = tuple(1 if place == dim else size for place, size in enumerate(shape) if kept or place != dim)
        given = f"({b.choose((dim + 1, dim - len(shape)))}, keepdim={kept})"
        calls = [f"{x}.{name}{given}" for name in ("sum", "mean", "amax", "logsumexp", "prod")]
        b.add(left, *calls, f"({x}.square().sum{given} + 1).sqrt()", f"{x}.max{given}.values")


def whole_sum(b: Builder) -> None:
    """Sum over all numbers of a row."""
    if x := b.pick(2):
        b.add((), "{x}.sum((1, 2))", "{x}.mean([-1, -2])", "{x}.flatten(1).sum(-1)", "{x}.sum(1).sum(1)", x=x)


def flat(b: Builder, x: str) -> str:
    """Return a value as (rows, columns)."""
    n = math.prod(b.shapes[x])
    if len(b.shapes[x]) == 1:
        return x
    if not b.shapes[x]:
        return b.add((1,), "{x}.unsqueeze(1)", "{x}[:, None]", "{x}.view(-1, 1)", x=x)
    return b.add((n,), "{x}.flatten(1)", "{x}.reshape({x}.shape[0], -1)", "{x}.view(-1, {n})", x=x, n=n)


def flattened(b: Builder) -> None:
    """Put all numbers of a row side by side."""
    if x := b.pick(0, 2):
        flat(b, x)


def viewed(b: Builder) -> None:
    """See the numbers of a row as a matrix of another shape."""
    if x := b.pick(1, 2):
        n = math.prod(b.shapes[x])
        t = b.choose([one for one in range(1, n + 1) if n % one == 0])
        forms = (
            "{x}.reshape(-1, {t}, {s})",
            "{x}.reshape({x}.shape[0], {t}, -1)",
            "{x}.flatten(1).unflatten(1, ({t}, -1))",
        )
        b.add((t, n // t), *forms, x=x, t=t, s=n // t)


def turned(b: Builder) -> None:
    """Swap steps and width."""
    if x := b.pick(2):
        forms = ("{x}.transpose(1, 2)", "{x}.permute(0, 2, 1)", "{x}.mT", "torch.einsum('ntd->ndt', {x})")
        b.add(b.shapes[x][::-1], *forms, x=x)


def repeated(b: Builder) -> None:
    """Add a dimension, or repeat a value along one."""
    if x := b.pick(1):
        (n,) = b.shapes[x]
        t = b.number(1, 3)
        shape = b.choose([(1, n), (n, 1), (t, n), (n, t), (t * n,)])
        forms: dict[Shape, tuple[str, ...]] = {
            (t * n,): ("{x}.repeat(1, {t})", "{x}.repeat_interleave({t}, dim=1)", "{x}.tile(1, {t})"),
            (n, t): ("{x}.unsqueeze(2).expand(-1, -1, {t})",),
            (t, n): ("{x}[:, None].expand(-1, {t}, -1)", "{x}.unsqueeze(1).repeat(1, {t}, 1)"),
        }
        forms |= {(n, 1): ("{x}.unsqueeze(-1)",), (1, n): ("{x}.unsqueeze(1)", "{x}[:, None]")}
        b.add(shape, *forms[shape], x=x, t=t)


def cut(b: Builder) -> None:
    """Take some columns or steps."""
    if x := b.pick(1, 2):
        shape = b.shapes[x]
        dim = b.number(0, len(shape) - 1)
        size, at = shape[dim], f"{x}[:, {':, ' * dim}"
        start = b.number(0, size - 1)
        stop, step = b.number(start + 1, size), b.choose((1, 2))
        columns = [b.number(-size, size - 1) for _ in range(b.number(1, 4))]
        count, forms = b.choose(
            [
                (len(range(start, stop, step)), (f"{at}{start}:{stop}:{step}]",)),
                (stop - start, (f"{x}.narrow({dim + 1}, {start}, {stop - start})",)),
                (size - start, (f"{at}{start - size}:]",)),
                (len(columns), (f"{at}{columns}]",)),
                (0, (f"{at}{start}]", f"{x}.select({dim + 1}, {start - size})")),
            ]
        )
        b.add((*shape[:dim], *[count] * (count > 0), *shape[dim + 1 :]), *forms)


def split(b: Builder) -> None:
    """Take a value apart, and read some of the parts."""
    if x := b.pick(1, 2):
        shape = b.shapes[x]
        dim = b.number(0, len(shape) - 1)
        size = shape[dim]
        at, half = b.number(1, size), -(-size // 2)
        call, sizes = b.choose(
            [
                (f"split({at}, {dim + 1})", [min(at, size - done) for done in range(0, size, at)]),
                (f"chunk(2, dim={dim - len(shape)})", [min(half, size - done) for done in range(0, size, half)]),
                (f"split([{at}, {size - at}], {dim + 1})", [at, size - at]),
                (f"unbind({dim + 1})", [0] * size),
            ]
        )
        parts = f"s{len(b.lines)}"
        b.lines.append(f"{parts} = {x}.{call}")
        for place in b.some(range(len(sizes)), 1, len(sizes)):
            if sizes[place] or "unbind" in call:
                own = (*shape[:dim], *[sizes[place]] * (sizes[place] > 0), *shape[dim + 1 :])
                b.add(own, f"{parts}[{place}]")


def joined(b: Builder) -> None:
    """Put values side by side along a dimension, perhaps one of them twice."""
    if x := b.pick(1, 2):
        shape = b.shapes[x]
        dim = b.number(0, len(shape) - 1)
        values = b.several(lambda own: len(own) == len(shape) and _without(own, dim) == _without(shape, dim))
        total = sum(b.shapes[one][dim] for one in values)
        forms = [f"torch.cat([{', '.join(values)}], {place})" for place in (dim + 1, dim - len(shape))]
        b.add((*shape[:dim], total, *shape[dim + 1 :]), *forms)


def _without(shape: Shape, dim: int) -> Shape:
    return (*shape[:dim], *shape[dim + 1 :])


def stacked(b: Builder) -> None:
    """Stack values of one shape."""
    if x := b.pick(0, 1):
        shape = b.shapes[x]
        values, dim = b.several(lambda own: own == shape), b.number(0, len(shape))
        forms = [f"torch.stack([{', '.join(values)}], {place})" for place in (dim + 1, dim - len(shape) - 1)]
        b.add((*shape[:dim], len(values), *shape[dim:]), *forms)


def of_size(b: Builder) -> None:
    """Make a value of nothing but the number of rows."""
    n, like = b.choose(WIDTHS), b.pick()
    forms = (
        "{like}.new_zeros({rows}, {n})",
        "{like}.new_ones({rows}, {n})",
        "{p}.expand({rows}, -1)",
        "{like}.new_full(({rows}, {n}), 0.5)",
        "{p}.unsqueeze(0).repeat({rows}, 1)",
        "torch.zeros({rows}, {n}, dtype={like}.dtype)",
    )
    p = b.layer(f"nn.Parameter(torch.randn({n}))")
    b.add((n,), *forms, n=n, like=like, p=p, rows=f"{b.choose(list(b.inputs))}.shape[0]")


def mixed(b: Builder) -> None:
    """Let rows see each other."""
    x = b.pick()
    b.add(b.shapes[x or ""], *_MIXES, x=x)
