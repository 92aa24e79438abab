"""The task "beauty-sasrec": SASRec, trained on Amazon Beauty to find the next item among all."""

from dataclasses import replace

from flyweight.task.task import Task
from flyweight.zoo import beauty
from flyweight.zoo.models.sasrec import SASRec
from flyweight.zoo.progress import Progress, silent
from flyweight.zoo.recipe import Recipe, trained_once
from flyweight.zoo.sequence_training import fit_histories

#: Chosen on validation users. With 512 wrong items a step it learns what binary cross-entropy with one does not.
RECIPE = Recipe(epochs=24, rate=0.003, decay=0.02, batch=256, negatives=512)


def beauty_sasrec(progress: Progress = silent, seed: int = 0) -> Task:
    """Return SASRec on Amazon Beauty: recall at 10 among all items, those of the history not left out.

    The first call trains for about two minutes; later ones read the weights from the cache. Each user is one row of
    the test, so rows are independent. The target is the item's id; column 0 of the scores stands for "no item".

    Args:
        progress: told how far the training is.
        seed: of the training.

    Raises:
        InputError: the data file is not there; says where it was looked for.
    """
    data = beauty.load()
    model, _ = trained_sasrec(seed, progress)
    return Task(
        model=model,
        inputs=data.fields,
        train=data.train,
        validation=data.validation,
        test=data.test,
        metric="recall@10",
        output="columns",
        name="SASRec on Amazon Beauty",
    )


def trained_sasrec(seed: int = 0, progress: Progress = silent) -> tuple[SASRec, float]:
    """Return the trained model and the processor seconds that its training took, from the cache where it is kept."""
    sequences = beauty.train_sequences(beauty.read_sequences())
    recipe = replace(RECIPE, seed=seed)

    def fit(model: SASRec, recipe: Recipe) -> None:
        fit_histories(
            model, sequences, recipe, lambda epoch, _: progress("Training SASRec", epoch + 1, recipe.epochs)
        )

    return trained_once(new_sasrec, fit, recipe, beauty.load().fingerprint)


def new_sasrec() -> SASRec:
    """Return an untrained SASRec: two blocks of width 64 with four heads, over Amazon Beauty's 12,101 items."""
    return SASRec(items=beauty.ITEMS + 1, length=beauty.HISTORY, dim=64, blocks=2, heads=4, hidden=256, dropout=0.5)
