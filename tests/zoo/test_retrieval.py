"""Retrieval: searches against a full sort, faiss against the exact search, and what is refused."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.errors import EngineError, InputError
from flyweight.zoo.exact_search import ExactIndex, best_columns
from flyweight.zoo.faiss_search import FaissIndex, default_factory, recall_of, tune
from flyweight.zoo.models.sasrec import SASRec
from flyweight.zoo.models.two_tower import TwoTower
from flyweight.zoo.retrieval import build_retriever

CENTRES = 40


def drawn(items=500, requests=7, dim=8, seed=0):
    """Clustered items, and requests that lie near some of them."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((CENTRES, dim))
    vectors = centres[random.integers(CENTRES, size=items)] + 0.3 * random.standard_normal((items, dim))
    asked = centres[random.integers(CENTRES, size=requests)] + 0.3 * random.standard_normal((requests, dim))
    return vectors.astype(np.float32), asked.astype(np.float32)


def fully_sorted(vectors, requests, k):
    return np.argsort(-(requests @ vectors.T), axis=1, kind="stable")[:, :k]


@given(
    values=st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=1, max_size=40),
    block=st.integers(1, 50),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_exact_search_is_a_full_sort_whatever_the_block(values, block, data):
    vectors = np.array(values, dtype=np.float32)  # small whole numbers: products are exact and often equal
    k = data.draw(st.integers(1, len(vectors)))
    requests = np.array([[1, 2], [-2, 1], [0, 0]], dtype=np.float32)
    found = ExactIndex(vectors, block).search(requests, k)
    np.testing.assert_array_equal(found.rows, fully_sorted(vectors, requests, k))
    np.testing.assert_array_equal(found.scores, np.take_along_axis(requests @ vectors.T, found.rows, 1))


def test_many_requests_are_cut_into_parts_without_a_trace(monkeypatch):
    vectors, requests = drawn(requests=50)
    whole = ExactIndex(vectors).search(requests, 10)
    monkeypatch.setattr("flyweight.zoo.exact_search._SCORES_AT_ONCE", 1_500)  # three requests at a time
    np.testing.assert_array_equal(ExactIndex(vectors).search(requests, 10).rows, whole.rows)


def test_best_columns_of_equal_scores_are_the_first():
    assert best_columns(np.array([[1.0, 3.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0]]), 2).tolist() == [[1, 3], [0, 1]]


@pytest.mark.parametrize("k", [0, 501])
def test_k_beyond_the_items_is_refused(k):
    vectors, requests = drawn()
    with pytest.raises(InputError, match=rf"k={k} items were asked for, but the index holds 500; ask for 1 to 500"):
        ExactIndex(vectors).search(requests, k)


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (np.zeros((0, 4), dtype=np.float32), r"at least one row and column; seen shape \(0, 4\)"),
        (np.zeros(4, dtype=np.float32), r"must be a matrix \(items, dim\)"),
        (np.array([[1.0, 2.0], [np.nan, 0.0], [0.0, np.inf]], dtype=np.float32), "2 of 3 item vectors .* row 1"),
    ],
    ids=["empty", "flat", "nan"],
)
def test_bad_item_vectors_are_refused(vectors, words):
    with pytest.raises(InputError, match=words):
        ExactIndex(vectors)


def test_bad_requests_are_refused():
    index = ExactIndex(np.eye(3, dtype=np.float32))
    with pytest.raises(InputError, match="Request vectors are 2 wide but item vectors 3"):
        index.search(np.zeros((1, 2), dtype=np.float32), 1)
    with pytest.raises(InputError, match="1 of 2 request vectors hold NaN or infinity, the first is row 1"):
        index.search(np.array([[0, 0, 0], [0, np.nan, 0]], dtype=np.float32), 1)
    with pytest.raises(InputError, match="block is how many items are scored together"):
        ExactIndex(np.eye(3, dtype=np.float32), block=0)


def test_faiss_flat_is_the_exact_search():
    pytest.importorskip("faiss", reason="faiss is an extra: flyweight[retrieval]")
    vectors, requests = drawn()
    exact, flat = ExactIndex(vectors).search(requests, 20), FaissIndex(vectors, "Flat").search(requests, 20)
    np.testing.assert_array_equal(exact.rows, flat.rows)
    np.testing.assert_allclose(exact.scores, flat.scores, rtol=1e-5)


def test_recall_of_lists_grows_to_all_with_the_lists_read():
    pytest.importorskip("faiss", reason="faiss is an extra: flyweight[retrieval]")
    vectors, requests = drawn(items=2_000, requests=50)
    exact, index = ExactIndex(vectors), FaissIndex(vectors, "IVF32,Flat")
    found = []
    for effort in (1, 4, 32):
        index.set_effort(effort)
        found.append(recall_of(index, exact, requests, 10))
    assert found[0] < 1
    assert found == sorted(found)
    assert found[-1] == 1


def test_recall_is_counted_by_hand():
    first, other = ExactIndex(np.diag([4, 3, 2, 1]).astype(np.float32)), ExactIndex(np.eye(4, dtype=np.float32)[::-1])
    requests = np.array([[1, 1, 1, 1]], dtype=np.float32)
    # The best three of the first are rows 0, 1, 2; all four are equal in the other, which gives rows 0, 1, 2 as well.
    assert recall_of(other, first, requests, 3) == 1
    falling = ExactIndex(np.diag([0, 2, 3, 4]).astype(np.float32))  # its best three are rows 3, 2, 1
    assert recall_of(falling, first, requests, 3) == pytest.approx(2 / 3)


@pytest.mark.parametrize("factory", ["IVF32,Flat", "HNSW16"])
def test_tuning_reaches_the_recall_asked_for(factory):
    pytest.importorskip("faiss", reason="faiss is an extra: flyweight[retrieval]")
    vectors, requests = drawn(items=2_000, requests=100)
    exact, index = ExactIndex(vectors), FaissIndex(vectors, factory)
    reached = tune(index, exact, requests, 10, recall=0.95)
    assert reached >= 0.95
    assert reached == recall_of(index, exact, requests, 10)
    assert index.effort < index.most_effort


def test_tuning_says_when_no_effort_is_enough():
    pytest.importorskip("faiss", reason="faiss is an extra: flyweight[retrieval]")
    vectors, requests = drawn(items=2_000)
    index = FaissIndex(vectors, "IVF8,PQ2x4")  # coarse codes lose what no number of lists brings back
    with pytest.raises(InputError, match=r"IVF8,PQ2x4 finds 0\.\d+ of the best 10 at its most effort, short of 1"):
        tune(index, ExactIndex(vectors), requests, 10, recall=1.0)


def test_faiss_refuses_what_it_cannot_make():
    pytest.importorskip("faiss", reason="faiss is an extra: flyweight[retrieval]")
    vectors, _ = drawn(items=50)
    with pytest.raises(InputError, match='faiss knows no index "Nonsense" for vectors 8 wide'):
        FaissIndex(vectors, "Nonsense")
    with pytest.raises(InputError, match="IVF64,Flat wants 64 lists for 50 items; take fewer lists"):
        FaissIndex(vectors, "IVF64,Flat")
    with pytest.raises(InputError, match="An index Flat has no effort to set"):
        FaissIndex(vectors, effort=3)
    with pytest.raises(InputError, match="effort must be at least 1; seen 0"):
        FaissIndex(vectors, "HNSW8", effort=0)


def test_missing_faiss_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(EngineError, match=r"faiss is not installed: pip install 'flyweight\[retrieval\]'"):
        FaissIndex(np.eye(2, dtype=np.float32))


def test_few_items_are_looked_at_one_by_one():
    assert [default_factory(items) for items in (10, 100_000, 1_000_000)] == ["Flat", "Flat", "IVF4096,Flat"]


class Towers(torch.nn.Module):
    """Requests and candidates that are vectors already, doubled and halved on the way."""

    def request(self, asked):
        return asked * 2

    def candidates(self, offered):
        return offered / 2


def test_a_retriever_is_the_exact_search_over_both_towers():
    vectors, requests = drawn()
    batches = [{"offered": torch.from_numpy(part)} for part in np.array_split(vectors, 3)]
    found = build_retriever(Towers(), batches).retrieve({"asked": torch.from_numpy(requests)}, 10)
    np.testing.assert_array_equal(found.rows, fully_sorted(vectors, requests, 10))


def test_excluded_candidates_are_not_returned_and_the_next_come_up():
    vectors, requests = drawn()
    retriever = build_retriever(Towers(), [{"offered": torch.from_numpy(vectors)}])
    order = fully_sorted(vectors, requests, 500)
    exclude = np.where(np.arange(5) < 4, order[:, [0, 2, 3, 3, 0]], -1)  # with a repeat and padding
    found = retriever.retrieve({"asked": torch.from_numpy(requests)}, 4, exclude)
    np.testing.assert_array_equal(found.rows, order[:, [1, 4, 5, 6]])
    with pytest.raises(InputError, match="k=498 items besides 3 excluded were asked for, but the index holds 500"):
        retriever.retrieve({"asked": torch.from_numpy(requests)}, 498, exclude)


def test_a_model_without_towers_and_an_empty_shelf_are_refused():
    with pytest.raises(InputError, match=r"Linear has no method request\(\*\*fields\)"):
        build_retriever(torch.nn.Linear(2, 1), [])
    with pytest.raises(InputError, match="There are no candidates to retrieve"):
        build_retriever(Towers(), [])
    with pytest.raises(InputError, match="1 of 2 item vectors hold NaN"):
        build_retriever(Towers(), [{"offered": torch.tensor([[1.0], [torch.nan]])}])


@pytest.mark.parametrize("name", ["two-tower", "sasrec"])
def test_the_towers_products_are_the_models_scores(name):
    torch.manual_seed(0)
    items, history = torch.arange(30), torch.tensor([[0, 0, 3, 7], [1, 2, 3, 4]])
    if name == "sasrec":
        model, request = SASRec(items=30, length=4, dim=8).eval(), {"history": history}
        expected = model(**request)
    else:
        model = TwoTower(users=5, items=30, dim=8, init_std=1.0)
        request = {"user_id": torch.tensor([1, 4]), "history": history}
        every = {key: value.repeat_interleave(30, dim=0) for key, value in request.items()}
        expected = model(**every, item_id=items.repeat(2)).view(2, 30)
    found = build_retriever(model, [{"item_id": part} for part in items.split(7)]).retrieve(request, 5)
    best = torch.topk(expected, 5)
    np.testing.assert_array_equal(found.rows, best.indices.numpy())
    np.testing.assert_allclose(found.scores, best.values.detach().numpy(), rtol=1e-5)


def test_a_tied_two_tower_reads_histories_from_the_items_table():
    torch.manual_seed(0)
    model = TwoTower(users=5, items=30, dim=8, init_std=1.0, tied=True)
    history, user_id = torch.tensor([[3, 3, 4, 0], [0, 0, 0, 0]]), torch.tensor([1, 2])
    bag = torch.stack([(2 * model.items.weight[3] + model.items.weight[4]) / 3, torch.zeros(8)])
    user = model.user_tower(torch.cat([model.users.weight[1:3], bag], 1)) + model.share * bag
    torch.testing.assert_close(model.request(user_id, history), user)
    score = model(user_id=user_id, history=history, item_id=torch.tensor([3, 9]))
    torch.testing.assert_close(score, (user * model.items.weight[[3, 9]]).sum(1))
    assert torch.export.export(
        model.eval(), (), {"user_id": user_id, "history": history, "item_id": torch.tensor([3, 9])}
    )
