"""Models trained from scratch at few bytes: what a sceptic would try instead of compressing.

Same data, same epoch, same layers as the zoo's ranker; only the tables differ, float32 where nothing else is said.
Id 0, the value that training never saw, is a zero vector in all of them, as it is in the zoo's ranker: sharing its row
would be unfair. Ids are mixed before they share rows, because their order says how frequent they are.
"""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

from flyweight.zoo.complete_journey import Dataset
from flyweight.zoo.models.dcnv2 import DCNv2
from flyweight.zoo.progress import Progress
from flyweight.zoo.training import Training, trained
from table_peers import quantised


def mixed(ids: Tensor) -> Tensor:
    """Return ids as numbers below 2**32 in no order (multiplicative hashing, Knuth)."""
    return ids * 2_654_435_761 % 4_294_967_296


class Hashed(nn.Module):
    """The hashing trick: ids share `rows` rows (Weinberger et al. 2009)."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, dim, sparse=True)
        nn.init.normal_(self.table.weight, std=1e-4)

    def forward(self, ids: Tensor) -> Tensor:
        """Return (n, dim)."""
        return self.table(mixed(ids) % self.table.num_embeddings) * (ids != 0).unsqueeze(-1)


class QuotientRemainder(nn.Module):
    """Two small tables, the row is their sum: one by quotient, one by remainder (Shi et al. 2020, arXiv 1909.02107)."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.remainder = nn.Embedding(max(rows - rows // 2, 1), dim, sparse=True)
        self.quotient = nn.Embedding(max(rows // 2, 1), dim, sparse=True)
        for table in (self.remainder, self.quotient):
            nn.init.normal_(table.weight, std=1e-4)

    def forward(self, ids: Tensor) -> Tensor:
        """Return (n, dim)."""
        number, count = mixed(ids), self.remainder.num_embeddings
        quotient = (number - number % count) // count % self.quotient.num_embeddings
        return (self.quotient(quotient) + self.remainder(number % count)) * (ids != 0).unsqueeze(-1)


class Fewer(nn.Module):
    """A ranker that reads some of the inputs only."""

    def __init__(self, model: DCNv2) -> None:
        super().__init__()
        self.model = model

    def forward(self, **ids: Tensor) -> Tensor:
        """Return logits (rows,)."""
        return self.model(**{name: ids[name] for name in self.model.tables})


def capped(rows: Mapping[str, int], dim: int, cap: int, make: Callable[[int, int], nn.Module]) -> DCNv2:
    """Return a ranker whose tables of more than `cap` rows are made by `make(cap, dim)`; the others keep every row."""
    model = DCNv2(dict.fromkeys(rows, 2), dim=dim)
    for name, count in rows.items():
        table = make(cap, dim) if count > cap else nn.Embedding(count, dim, sparse=True)
        if isinstance(table, nn.Embedding):
            nn.init.normal_(table.weight, std=1e-4)
        model.tables[name] = table
    return model


def largest_cap(rows: Mapping[str, int], most: float) -> int:
    """Return the largest cap under which all tables together have at most `most` rows.

    One cap for every table is how hashed vocabularies are set in practice, and it is kind to them: shares in proportion
    to the vocabularies would leave next to nothing of the product's own table, which says what is popular.
    """
    low, high = 1, max(rows.values())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(min(count, middle) for count in rows.values()) <= most else (low, middle - 1)
    return low


def controls(data: Dataset, total: int, progress: Progress) -> Iterator[tuple[str, nn.Module, int]]:
    """Yield name, trained model and bytes of its tables, each within the bytes that its name says.

    Args:
        total: bytes of the original's tables.
    """
    rows = data.vocabulary
    plain = {name: count for name, count in rows.items() if "_x_" not in name}

    def hashed(ratio: int, dim: int, make: Callable[[int, int], nn.Module]) -> Callable[[], nn.Module]:
        cap = largest_cap(rows, total / ratio / 4 / dim)
        return lambda: capped(rows, dim, cap, make)

    width = max(int(total / 256 / 4 / sum(plain.values())), 1)
    recipes: list[tuple[str, Callable[[], nn.Module]]] = [
        ("1 wide, every row kept", lambda: DCNv2(rows, dim=1)),
        ("256x: hashing trick, 16 wide", hashed(256, 16, Hashed)),
        ("256x: hashing trick, 1 wide", hashed(256, 1, Hashed)),
        ("256x: quotient-remainder, 16 wide", hashed(256, 16, QuotientRemainder)),
        (f"256x: no crosses, {width} wide", lambda: Fewer(DCNv2(plain, dim=width))),
        ("512x: hashing trick, 1 wide", hashed(512, 1, Hashed)),
        ("256x: no crosses, 16 wide", lambda: Fewer(DCNv2(plain, dim=16))),
    ]
    for name, make in recipes:
        model = trained(make, data.train, Training(), data.fingerprint, progress)
        if name.endswith("no crosses, 16 wide"):  # the best of both: trained wide, then stored as a peer would
            name, model, size, _ = quantised(model, f"{name}, stored as int4 rows", 4)
        else:
            size = sum(module.weight.numel() * 4 for module in model.modules() if isinstance(module, nn.Embedding))
        yield name, model, size
