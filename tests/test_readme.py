"""The README's code runs as it stands, and the files and commands it names exist."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flyweight.planning import clock
from flyweight.planning.search import search, workbench

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


class Ranker(nn.Module):
    """What the README's task describes: a user, an item, a price."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(2_469, 8), nn.Embedding(68_509, 8)
        self.mlp = nn.Sequential(nn.Linear(17, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, user_id: Tensor, item_id: Tensor, price: Tensor) -> Tensor:
        return self.mlp(torch.cat([self.user(user_id), self.item(item_id), price[:, None]], 1)).squeeze(1)


def rows(count: int, seed: int) -> list[tuple[dict[str, Tensor], Tensor]]:
    drawn = torch.Generator().manual_seed(seed)
    user, item = (torch.randint(0, many, (count,), generator=drawn) for many in (2_469, 68_509))
    price, session = torch.rand(count, generator=drawn), torch.arange(count) // 10
    clicked = (torch.rand(count, generator=drawn) < price).float()
    return [({"user_id": user, "item_id": item, "price": price, "session_id": session}, clicked)]


def test_code_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search, "MINUTES", 0.01)  # a trial and no more; what searches find is tested elsewhere
    monkeypatch.setattr(workbench, "SECONDS", 0.05)
    monkeypatch.setattr(clock, "SECONDS", 0.5)
    use, steps, make_task = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    splits = {name: rows(3_000, seed) for seed, name in enumerate(("train", "validation", "test"))}
    names = {"model": Ranker(), "ids": np.arange(500), "prices": np.linspace(0, 1, 500, dtype=np.float32), **splits}
    exec("import flyweight as fw\n" + make_task, names)
    exec(use, names)
    assert names["scores"].shape == (500,)
    assert (tmp_path / "ranker.fly" / "manifest.json").is_file()
    exec(steps, names)
    assert [change.step for change in names["result"].changes][:4] == ["encode_tables", "prune", "distill", "quantize"]


@pytest.mark.parametrize("link", re.findall(r"\]\(([\w./]+)\)", TEXT))
def test_linked_files_exist(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("target", re.findall(r"^    make (\w+)", TEXT, re.MULTILINE))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
