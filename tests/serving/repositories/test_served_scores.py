"""What a server answers with an exported model: bit for bit what `Ranker` does, and an error where `Ranker` has one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from served_bundles import FORMS, Arrays, due_scores, sample_request, start

from flyweight.errors import InputError
from flyweight.serving.repositories.export_bundle import export_bundle

SERVERS = ("triton", "openvino-model-server")
Exported = tuple[Path, Path]
Export = Callable[[str, str], Exported]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Return how to have the bundle of a form and what was written of it for a server, once."""
    root = tmp_path_factory.mktemp("served")
    made: dict[tuple[str, str], Exported] = {}

    def export(form: str, to: str) -> Exported:
        if (form, to) not in made:
            (root / form).mkdir(exist_ok=True)
            bundle = FORMS[form](root / form)
            made[form, to] = bundle, export_bundle(bundle, root / form / to, to=to).path
        return made[form, to]

    return export


@pytest.mark.parametrize("to", SERVERS)
@pytest.mark.parametrize("form", FORMS)
def test_a_server_answers_as_the_ranker_to_the_last_bit(exported: Export, form: str, to: str) -> None:
    bundle, out = exported(form, to)
    request = sample_request(out)
    scores = start(out, to)(request)
    due = due_scores(bundle, to, request)
    assert scores.dtype == due.dtype
    np.testing.assert_array_equal(scores, due)


@pytest.mark.parametrize("to", SERVERS)
def test_unknown_ids_are_taken_for_the_unknown_one_then_relabelled(exported: Export, to: str) -> None:
    bundle, out = exported("relabelled", to)
    request: Arrays = {
        "user_id": np.array([20]),
        "item_id": np.array([0, 299, 300, -1, 10**6, 2]),
        "price": np.ones(6, np.float32),
    }
    scores = start(out, to)(request)
    np.testing.assert_array_equal(scores, due_scores(bundle, to, request))
    assert len(set(scores[2:].tolist())) == 1, "300, -1 and a million are all read as 2"


@pytest.mark.parametrize("to", SERVERS)
@pytest.mark.parametrize(
    ("form", "name", "value"),
    [
        ("plain", "user_id", [20]),
        ("plain", "user_id", [-1]),
        ("plain", "item_id", [0, 1, 2, 3, 4, 300]),
        ("plain", "item_id", [0, 1, 2, 3, 4, -300]),
        ("plain", "price", [0, 1, 2, 3, 4, np.nan]),
        ("plain", "price", [0, 1, 2, 3, 4, -np.inf]),
        ("plain", "price", [1]),
        ("hoisted", "user_id", [20]),
        ("hoisted", "user_id", [-20]),
        ("hoisted", "item_id", [1]),
        ("relabelled", "price", [1]),
        ("mixed", "tags", [[0, 0]] * 5 + [[0, 7]]),
        ("mixed", "kind", [0, 1, 2, 3, 4, 5]),
        ("mixed", "price", [[0, 0]] * 5 + [[0, 65_520]]),
        ("mixed", "price", [[0, 0]]),
    ],
)
def test_a_server_has_no_scores_where_the_ranker_refuses(
    exported: Export, form: str, name: str, value: list, to: str
) -> None:
    bundle, out = exported(form, to)
    request = sample_request(out)
    run, wrong = start(out, to), {**request, name: np.array(value, request[name].dtype)}
    before = run(request)
    with pytest.raises(InputError):
        due_scores(bundle, to, wrong)
    if to == "triton":
        with pytest.raises(Exception, match="Non-zero status code returned while running"):
            run(wrong)
    else:
        assert np.isnan(run(wrong)).all()
    np.testing.assert_array_equal(run(request), before)


@pytest.mark.parametrize("price", [np.ones(9), np.ones(3), np.ones(0)])
def test_a_field_of_another_length_spoils_no_later_call_in_openvino(exported: Export, price: np.ndarray) -> None:
    out = exported("plain", "openvino-model-server")[1]
    request, run = sample_request(out), start(out, "openvino-model-server")
    before = run(request)
    assert np.isnan(run({**request, "price": price.astype(np.float32)})).all()
    np.testing.assert_array_equal(run(request), before)


@pytest.mark.parametrize("to", SERVERS)
@pytest.mark.parametrize("form", FORMS)
def test_no_candidates_get_no_scores(exported: Export, form: str, to: str) -> None:
    out = exported(form, to)[1]
    request = sample_request(out)
    none = {name: value if len(value) == 1 else value[:0] for name, value in request.items()}
    assert start(out, to)(none).shape[0] == 0


def test_the_largest_half_float_is_served(exported: Export) -> None:
    bundle, out = exported("mixed", "triton")
    request = sample_request(out)
    request["price"][0] = 65_519.0
    np.testing.assert_array_equal(start(out, "triton")(request), due_scores(bundle, "triton", request))


@pytest.mark.parametrize(
    ("price", "words"),
    [(np.full(6, np.nan), "a number is not finite"), (np.ones(1), "an input differs in length from the first")],
)
def test_onnx_runtime_names_what_was_refused(exported: Export, price: np.ndarray, words: str) -> None:
    out = exported("hoisted", "triton")[1]
    request = {**sample_request(out), "price": price.astype(np.float32)}
    with pytest.raises(Exception, match=f"Name:'[^']*{words}"):
        start(out, "triton")(request)


def test_two_requests_in_a_call_do_not_fit_openvinos_shapes(exported: Export) -> None:
    out = exported("hoisted", "openvino-model-server")[1]
    with pytest.raises(RuntimeError, match=r"got \[2\] expecting \[1\]"):
        start(out, "openvino-model-server")({**sample_request(out), "user_id": np.array([1, 2])})


def test_four_bit_weights_are_written_out_for_onnx_runtime_alone(exported: Export) -> None:
    (kept,) = exported("four_bits", "openvino-model-server")[1].rglob("model.onnx")
    assert "DequantizeLinear" in {node.op_type for node in onnx.load(kept).graph.node}
    (file,) = exported("four_bits", "triton")[1].rglob("model.onnx")
    written = onnx.load(file)
    assert "DequantizeLinear" not in {node.op_type for node in written.graph.node}
    (weights,) = [one for one in written.graph.initializer if list(one.dims) == [64, 3]]
    assert weights.data_type == onnx.TensorProto.FLOAT
