"""A training under way: its batches, its best state so far, and its place in a file."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import reduce
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flyweight.distillation.checkpoint import read_checkpoint, write_checkpoint
from flyweight.distillation.checksum import bytes_of
from flyweight.distillation.devices import Place, at_home
from flyweight.distillation.objective import Objective, Part
from flyweight.distillation.optimizers import make_optimizers, move, set_rate, states, step_down
from flyweight.distillation.passes import plan_passes
from flyweight.distillation.shards import find_shards
from flyweight.distillation.standing import Standing, stand
from flyweight.distillation.working import Working, has_batch_norm
from flyweight.errors import InputError
from flyweight.task.batches import Batch
from flyweight.task.scores import call_model, cuts_by_row
from flyweight.task.task import Task

#: Batches and rows below which dropout and batch statistics stay as in evaluation: a few steps move running
#: statistics but do not replace them, and statistics of a few rows are noise.
LEAST_BATCHES, LEAST_ROWS = 10, 16
#: Batches that running statistics are read from anew: at a momentum of 0.1, 96% of them are new then.
READ_ANEW = 30
#: Seconds between checkpoints, beside those at each check.
CHECKPOINT_SECONDS = 60.0
AfterStep = Callable[[nn.Module], None]


class Run:
    """A training under way.

    Args:
        task: the data.
        working: the copy that is trained.
        objective: the loss, with the settings.
        place: which process this is.
        lr: the highest learning rate.
        after_step: called with the copy after each step.
    """

    def __init__(
        self,
        task: Task,
        working: Working,
        objective: Objective,
        place: Place,
        lr: float,
        after_step: AfterStep | None,
    ) -> None:
        self.task, self.working, self.objective = task, working, objective
        self.place, self.after_step = place, after_step
        self.training = objective.training
        self.passes = plan_passes(task, self.training.epochs, place.rank, place.world)
        self.called = at_home(place.spread(working.model), place.device)
        self.lr = lr
        self.optimizers = make_optimizers(working, lr, objective.parameters())
        self.checks = self.passes.checks()
        self.number = 0  # batches done
        self.standings: list[Standing] = []
        self.best, self.best_at = working.state(), 0
        self.notes: list[str] = []
        self.over = False

        inputs, target, _ = next(task.batches("train"))
        home = at_home(working.model, place.device)
        self._cuts = not objective.by_list and cuts_by_row(home, inputs, len(target))
        self.shards = find_shards(self.training.shards)
        if self.shards is not None and (not self._cuts or working.sparse):
            raise InputError(
                "A step cannot be cut into shards here: rows hang on each other (flat bags, losses by list), or tables "
                "are trained with sparse gradients. Leave out shards=."
            )
        self._quiet = self.passes.total < LEAST_BATCHES or len(target) < LEAST_ROWS
        self.steps = -(-len(target) // self.training.batch_rows) if self._cuts else 1  # of one batch

    def begin(self, checkpoint: Path | None) -> int:
        """Take up the checkpoint, or judge the start; return how many batches are behind."""
        self._run = self._identity() if checkpoint else ""
        found = read_checkpoint(checkpoint, self._run) if checkpoint else None
        if found is not None:
            self._take_up(found)
        else:
            self._check()
            self._refresh()
        return self.number

    def try_out(self, batches: int) -> Standing | None:
        """Train on so many batches only, and return how the model then stands; None where it came to no end."""
        self.passes = replace(self.passes, total=min(batches, self.passes.total))
        self.checks = frozenset({self.passes.total})
        self.go_on(None, lambda: None)
        return self.standings[-1] if self.standings else None

    def _refresh(self) -> None:
        """Read running statistics anew from a few batches, and start from there if validation is better for it.

        Cutting and rounding leave a network's weights nearer to what they were than its batch statistics.
        """
        if not has_batch_norm(self.working.model):
            return
        before = self.working.state(exact=True)
        self.working.model.train()
        torch.manual_seed(self._seed(0))  # of dropout, whatever was drawn before
        with torch.no_grad():
            passes = chain.from_iterable(self.task.batches("train") for _ in range(READ_ANEW))
            for inputs, target, _ in islice(passes, READ_ANEW):
                most = self.training.batch_rows if self._cuts else len(target)
                call_model(self.called, {name: value[:most] for name, value in inputs.items()}, len(target[:most]))
        self._check()
        if not self.best_at:
            self.working.restore(before)

    def go_on(self, checkpoint: Path | None, advance: Callable[[], None]) -> None:
        """Train to the end, or until it no longer gets better, or until the loss is not a number."""
        if self.over:
            return
        self.working.model.train(not self._quiet)
        checks, saved = self.checks, time.monotonic()
        torch.manual_seed(self._seed(self.number))
        for number, place, batch in self.passes.batches(self.task, self.number):
            if not self._learn(number, place, batch):
                return
            self.number = number + 1
            advance()
            checked = self.number in checks
            self.over = checked and (self._check() or self.number >= self.passes.total)
            if checkpoint and (checked or time.monotonic() - saved > CHECKPOINT_SECONDS):
                self._save(checkpoint)
                saved = time.monotonic()
            if self.over:
                return
            torch.manual_seed(self._seed(self.number))  # so that going on from a file draws what it would have drawn
        if self.number not in checks:  # the last pass gave fewer batches than were counted
            self._check()

    def _learn(self, number: int, place: int, batch: Batch) -> bool:
        """Take the steps of one batch; return whether all went well."""
        whole = self.objective.part(place, batch, self._seed(number))
        parts = whole.pieces(self.training.batch_rows, self._seed(number)) if self._cuts else [whole]
        for turn, part in enumerate(parts):
            set_rate(self.optimizers, (number + turn / len(parts)) / self.passes.total)
            loss, fine = self._step(part, self._seed(number) + turn)
            if not fine:
                self._stop(number, loss)
                return False
            if self.after_step is not None:
                with torch.no_grad():
                    self.after_step(self.working.model)
        return True

    def _step(self, part: Part, seed: int) -> tuple[float, bool]:
        """Take one step; return the loss, and whether it and its gradient are finite."""
        if self.shards is not None:
            loss = self.shards.gradients(self.working, self.objective, self.called, part, seed)
            return loss, math.isfinite(loss) and math.isfinite(step_down(self.optimizers))
        found = self.objective.loss(self.called, part)
        loss = float(found.detach())
        return loss, self.place.agrees(math.isfinite(loss)) and math.isfinite(move(self.optimizers, found))

    def _check(self) -> bool:
        """Judge the model, keep it if it is the best; return whether it has not got better for half of all checks."""
        with self.working.rounded() as model:
            standing = stand(self.task, at_home(model, self.place.device), self.passes.epochs(self.number))
        self.standings.append(standing)
        if len(self.standings) > 1 and self._above(standing, self.standings[self.best_at]):
            self.best, self.best_at = self.working.state(), len(self.standings) - 1
        # Waiting is counted among trained models: at a high rate a good start is passed again only near the end.
        trained = [one for one in self.standings if one.epoch > 0]
        if not trained:
            return False
        best = reduce(lambda one, other: other if self._above(other, one) else one, trained)
        waited = len(trained) - 1 - trained.index(best)
        if waited >= max(3, len(self.checks) // 2) and self.number < self.passes.total:
            self.notes.append(
                f"stopped after {standing.epoch:.2g} epochs: no better on validation for the last {waited} checks"
            )
            return True
        return False

    def _above(self, one: Standing, other: Standing) -> bool:
        return one.above(other, larger_is_better=self.task.spec.larger_is_better)

    def _stop(self, number: int, loss: float) -> None:
        self.over = True
        kept = self.standings[self.best_at].epoch if self.standings else 0.0
        self.notes.append(
            f"stopped at batch {number + 1:,} of {self.passes.total:,}: the loss or its gradient is not finite "
            f"(loss {loss}); kept the model of epoch {kept:.2g}. Lower lr={self.lr}."
        )

    def _seed(self, number: int) -> int:
        return (self.training.seed * 1_000_003 + number) * 64 + self.place.rank % 64

    def _identity(self) -> str:
        """Return what tells this training from others: settings, the weights it starts from, the size of the data."""
        settings = asdict(self.training)
        if settings["shards"] is None:  # as it was told before there were shards
            del settings["shards"]
        digest = hashlib.sha256(json.dumps([settings, self.lr], sort_keys=True).encode())
        digest.update(f"{self.passes.each} {self.passes.world} {self.task.name}".encode())
        for name, value in sorted(self.working.trained.items()):
            digest.update(name.encode())
            digest.update(bytes_of(value))
        return digest.hexdigest()

    def _save(self, path: Path) -> None:
        if self.place.rank or (self.shards is not None and self.shards.rank):
            return
        contents: dict[str, Any] = {
            "run": self._run,
            "lr": self.lr,
            "number": self.number,
            "now": self.working.state(exact=True),
            "beside": [one.detach() for one in self.objective.parameters()],
            "optimizers": states(self.optimizers),
            "standings": [[one.epoch, one.metric, one.loss] for one in self.standings],
            "best": self.best,
            "best_at": self.best_at,
            "notes": self.notes,
            "over": self.over,
        }
        write_checkpoint(path, contents)

    def _take_up(self, found: dict[str, Any]) -> None:
        self.number, self.best, self.best_at = found["number"], found["best"], found["best_at"]
        self.standings = [Standing(*values) for values in found["standings"]]
        self.notes, self.over = list(found["notes"]), found["over"]
        self.working.restore(found["now"])
        with torch.no_grad():
            for own, kept in zip(self.objective.parameters(), found["beside"], strict=True):
                own.copy_(kept)
        for optimizer, state in zip(self.optimizers, found["optimizers"], strict=True):
            optimizer.load_state_dict(state)
