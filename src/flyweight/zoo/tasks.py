"""The tasks that can be had by name: real data, a model trained on it, and what counts as quality."""

from collections.abc import Callable

from flyweight.task.task import Task
from flyweight.zoo import complete_journey as journey
from flyweight.zoo.dcnv2 import DCNv2
from flyweight.zoo.progress import Progress, silent
from flyweight.zoo.training import Training, trained


def complete_journey(progress: Progress = silent) -> Task:
    """Return the default task: DCN-V2 over 25 fields and 2.9 M rows, trained for one epoch, on Complete Journey.

    The first call reads the data and trains (a minute on 2 cores); later ones read both from the cache in seconds.
    Intervals are by request (household, store, week): its rows share the household's habits and the week's offers.

    Raises:
        InputError: the data package is missing; says what to install.
    """
    data = journey.load(progress)
    model = trained(lambda: DCNv2(data.vocabulary), data.train, Training(), data.fingerprint, progress)
    train, validation, test = (split.with_keys("request_id") for split in (data.train, data.validation, data.test))
    return Task(
        model=model,
        inputs=data.fields,
        train=train,
        validation=validation,
        test=test,
        metric="auc",
        group="request_id",
        name="DCN-V2 on Complete Journey",
    )


#: What `flyweight compress NAME` accepts beside a file.
ZOO: dict[str, Callable[..., Task]] = {"complete-journey": complete_journey}
