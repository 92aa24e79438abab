"""The tasks that can be had by name: real data, a model trained on it, and what counts as quality."""

from collections.abc import Callable

from flyweight.task.task import Task
from flyweight.zoo import complete_journey as journey
from flyweight.zoo import journey_rankers, movielens, retail_rows
from flyweight.zoo.beauty_candidates import beauty_candidates
from flyweight.zoo.beauty_sasrec import beauty_sasrec
from flyweight.zoo.image_classifiers import lenet_300_100, traffic_signs, xrays
from flyweight.zoo.models.dcnv2 import DCNv2
from flyweight.zoo.models.two_tower import TwoTower
from flyweight.zoo.progress import Progress, silent
from flyweight.zoo.training import Training, trained

_JOURNEY_TRAINING = Training()
#: One pass, as of Complete Journey; rates were chosen on validation baskets.
_RETAIL_TRAINING = Training(table_rate=0.008, final_rate=0.1)
_MOVIELENS_TRAINING = Training(batch_rows=4096, table_rate=0.02, dense_rate=0.005, final_rate=0.05, epochs=3)


def complete_journey(progress: Progress = silent) -> Task:
    """Return the default task: DCN-V2 over 25 fields and 2.9 M rows, trained for one epoch, on Complete Journey.

    The first call reads the data and trains (a minute on 2 cores); later ones read both from the cache in seconds.
    Intervals are by request (household, store, week): its rows share the household's habits and the week's offers.

    Raises:
        InputError: the data package is missing; says what to install.
    """
    data = journey.load(progress)
    model = trained(lambda: DCNv2(data.vocabulary), data.train, _JOURNEY_TRAINING, data.fingerprint, progress)
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


def movielens_1m(progress: Progress = silent) -> Task:
    """Return the second task: a two-tower retrieval model, three epochs, on MovieLens-1M's likes.

    Intervals are by user: a user's rows share the tower's output.

    Raises:
        InputError: the data package is missing; says what to install.
    """
    data = movielens.load(progress)
    users, items = data.vocabulary["user_id"], data.vocabulary["item_id"]
    model = trained(lambda: TwoTower(users, items), data.train, _MOVIELENS_TRAINING, data.fingerprint, progress)
    return Task(
        model=model,
        inputs=data.fields,
        train=data.train,
        validation=data.validation,
        test=data.test,
        metric="auc",
        group="user_id",
        name="two-tower on MovieLens-1M",
    )


def online_retail(progress: Progress = silent) -> Task:
    """Return DCN-V2 over 11 fields, trained for one epoch, on Online Retail II: what goes into a customer's basket?

    Intervals are by customer: baskets of one customer are alike.

    Raises:
        InputError: the data file is not there; says where it was looked for.
    """
    data = retail_rows.load(progress)
    model = trained(lambda: DCNv2(data.vocabulary), data.train, _RETAIL_TRAINING, data.fingerprint, progress)
    return Task(
        model=model,
        inputs=data.fields,
        train=data.train,
        validation=data.validation,
        test=data.test,
        metric="auc",
        group="customer_number",
        name="DCN-V2 on Online Retail II",
    )


#: What `flyweight compress NAME` accepts beside a file.
ZOO: dict[str, Callable[..., Task]] = {
    "complete-journey": complete_journey,
    "complete-journey-mlp": journey_rankers.mlp,
    "complete-journey-dlrm": journey_rankers.dlrm,
    "complete-journey-deepfm": journey_rankers.deepfm,
    "complete-journey-din": journey_rankers.din,
    "movielens-1m": movielens_1m,
    "beauty-sasrec": beauty_sasrec,
    "beauty-candidates": beauty_candidates,
    "online-retail": online_retail,
    "lenet-300-100": lenet_300_100,
    "traffic-signs": traffic_signs,
    "pneumonia": xrays,
}
