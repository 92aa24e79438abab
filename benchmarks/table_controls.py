"""Models trained from scratch at few bytes: what a sceptic would try instead of compressing.

Same data, same epoch, same layers as the zoo's ranker; only the tables differ. Float32 tables, no compression after.
Id 0, the value that training never saw, is a zero vector in all of them, as it is in the zoo's ranker: sharing its row
would be unfair. Ids are mixed before they share rows, because their order says how frequent they are.
"""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

from flyweight.zoo.complete_journey import Dataset
from flyweight.zoo.dcnv2 import DCNv2
from flyweight.zoo.progress import Progress
from flyweight.zoo.training import Training, trained

#: Tables of fewer rows keep every row, in every control: they are few bytes.
KEPT_ROWS = 300


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

    def __init__(self, vocabulary: int, rows: int, dim: int) -> None:
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


def _shrunk(rows: Mapping[str, int], dim: int, share: float, make: Callable[[int, int, int], nn.Module]) -> DCNv2:
    """Return a ranker whose large tables have `share` of their rows, made by `make(vocabulary, rows, dim)`."""
    model = DCNv2({name: min(count, 2) for name, count in rows.items()}, dim=dim)
    for name, count in rows.items():
        table = (
            nn.Embedding(count, dim, sparse=True) if count < KEPT_ROWS else make(count, max(int(count * share), 4), dim)
        )
        if isinstance(table, nn.Embedding):
            nn.init.normal_(table.weight, std=1e-4)
        model.tables[name] = table
    return model


def controls(data: Dataset, budget: int, progress: Progress) -> Iterator[tuple[str, nn.Module, int]]:
    """Yield name, trained model and bytes of its tables, each within `budget` bytes."""
    rows = data.vocabulary
    kept = sum(count for count in rows.values() if count < KEPT_ROWS)
    large = sum(count for count in rows.values() if count >= KEPT_ROWS)
    plain = {name: count for name, count in rows.items() if "_x_" not in name}

    def share(dim: int) -> float:
        return (budget / 4 / dim - kept) / large

    width = max(int(budget / 4 / sum(plain.values())), 1)
    recipes: list[tuple[str, Callable[[], nn.Module]]] = [
        ("hashing trick, 16 wide", lambda: _shrunk(rows, 16, share(16), lambda _, few, dim: Hashed(few, dim))),
        ("1 wide and hashed", lambda: _shrunk(rows, 1, share(1), lambda _, few, dim: Hashed(few, dim))),
        ("quotient-remainder, 16 wide", lambda: _shrunk(rows, 16, share(16), QuotientRemainder)),
        (f"plain fields without crosses, {width} wide", lambda: Fewer(DCNv2(plain, dim=width))),
    ]
    for name, make in recipes:
        model = trained(make, data.train, Training(), data.fingerprint, progress)
        size = sum(module.weight.numel() * 4 for module in model.modules() if isinstance(module, nn.Embedding))
        yield name, model, size
