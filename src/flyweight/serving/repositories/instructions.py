"""What lies beside a model repository: how to start the server, a request to try, and the scores that are due."""

import json
from typing import Any

import flyweight
from flyweight.engines.agreement import Agreement
from flyweight.engines.registry import tolerance_in
from flyweight.serving.repositories import kserve
from flyweight.serving.repositories.asked_tensors import AskedTensor, as_json_tensor
from flyweight.serving.repositories.confirm_scores import engine_name
from flyweight.serving.repositories.refused_inputs import DIFFERS, WHY
from flyweight.serving.repositories.served_model import ServedModel
from flyweight.serving.repositories.stored_calls import calls_of
from flyweight.serving.repositories.targets import Target

README, REQUEST, RESPONSE = "README.txt", "sample_request.json", "expected_response.json"


def instruction_files(model: ServedModel, target: Target, seen: Agreement, unread: tuple[str, ...]) -> dict[str, str]:
    """Return the texts by the names of their files.

    Args:
        seen: how close the stored requests came in the server's engine.
        unread: inputs of the bundle that the server does not take.
    """
    call = calls_of(model.bundle.samples[0], model.signature)[0]
    output = model.signature.output
    request = {
        "inputs": [as_json_tensor(one, call.inputs[one.name]) for one in model.signature.inputs],
        "outputs": [{"name": output.name}],
    }
    response = {
        "model_name": model.name,
        "model_version": str(model.version),
        "outputs": [as_json_tensor(output, call.scores)],
    }
    words = _readme(model, target, seen, unread) + raw_value_words(model)
    return {README: words, REQUEST: _json(request), RESPONSE: _json(response)}


def raw_value_words(model: ServedModel) -> str:
    """Return what becomes of a bundle's raw values in another server; "" where it carries none."""
    names = [one.name for one in model.signature.inputs if one.name in model.bundle.vocabularies]
    if not names:
        return ""
    listed = ", ".join(names)
    return (
        "\nThe bundle's vocabularies do not come along: a graph cannot look text up the same way in every server.\n"
        f"Send ids here, never raw values, for {listed}.\n"
        "`flyweight serve` takes both.\n"
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _readme(model: ServedModel, target: Target, seen: Agreement, unread: tuple[str, ...]) -> str:
    first = f"First:\n\n  {kserve.before_starting(model)}\n\n" if target.as_label else ""
    allowed = tolerance_in(engine_name(model, target.engine))
    lost = f"\nNot among them, because the model does not read them: {', '.join(unread)}.\n" if unread else ""
    return f"""{model.bundle.manifest.name}, for {target.title}

Written by flyweight {flyweight.__version__} from the bundle whose manifest has the SHA-256
{model.manifest_sha256}.
Its stored requests were scored with these very files, in the engine that the server runs:
{seen.words}.

{first}Start the server, in this folder:

  {_indented(target.start(model))}

Ask it:

  curl -s -H "Content-Type: application/json" -d @{REQUEST} \\
    "{target.address(model)}"

The scores must be those of {RESPONSE}, up to {allowed:g} relative{_rounding(model)}.

Inputs ({_call(model)}):

{_table(model)}
Output: {_shown(model.signature.output)}
{lost}
Ids outside of a vocabulary are taken for the field's id of unknown values where it has one. An id without one, a
number that is not finite and fields that differ in length are refused:
{_limits(target)}"""


def _rounding(model: ServedModel) -> str:
    noisy = any(sample.noise for sample in model.bundle.samples)
    return ",\nor, as its layers are rounded to few bits, up to what that rounding does to them" if noisy else ""


def _call(model: ServedModel) -> str:
    if not model.signature.per_call:
        return "a batch of rows; ? is the number of rows"
    return "one request a call; ? is the number of its candidates"


def _table(model: ServedModel) -> str:
    entries = model.bundle.manifest.inputs
    lines = []
    for one in model.signature.inputs:
        entry = entries[one.name]
        ids = f", ids 0 to {entry.rows - 1:,}" if entry.rows is not None else ""
        unknown = f" (unknown: {entry.unknown})" if entry.unknown is not None else ""
        lines.append(f"  {_shown(one)}, {entry.role}{ids}{unknown}\n")
    return "".join(lines)


def _shown(tensor: AskedTensor) -> str:
    shape = ", ".join("?" if size is None else str(size) for size in tensor.shape)
    name = tensor.name if tensor.name.isprintable() else repr(tensor.name)
    return f"{name}: {tensor.datatype} [{shape}]"


def _limits(target: Target) -> str:
    if target.engine == "openvino":
        return (
            "every score of the answer is NaN. (OpenVINO has no failure to rely on.) It keeps the lower 32 bits of an\n"
            "id, so check ids past 2,147,483,647 before they are sent.\n"
        )
    return f'the request fails, and the error names a node,\n"{WHY}" or\n"{DIFFERS}".\n'


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")
