"""Ids by falling frequency, and codes of pairs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flyweight.zoo.vocabulary import crossed, frequency_ids

CODES = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1)


@given(CODES)
def test_ids_fall_with_training_count_and_are_zero_for_the_unseen(rows):
    codes, train = np.array([code for code, _ in rows]), np.array([seen for _, seen in rows])
    ids, size = frequency_ids(codes, train)
    seen = sorted(set(codes[train].tolist()), key=lambda code: (-np.sum(codes[train] == code), code))
    assert size == len(seen) + 1
    assert ids.tolist() == [seen.index(code) + 1 if code in seen else 0 for code in codes]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_crossed_orders_like_the_pairs(pairs):
    first, second = np.array(pairs).T
    order = sorted(set(pairs))
    assert crossed(first, second).tolist() == [order.index(pair) for pair in pairs]
