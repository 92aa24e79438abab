"""The OpenAPI document of the service, with an example of each served model taken from its stored requests."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import flyweight
from flyweight.serving.datatypes import BYTES, DATATYPES, datatype_of
from flyweight.serving.layout import SCORES
from flyweight.serving.refusal import STATUSES
from flyweight.serving.repository import Repository
from flyweight.serving.served import Served
from flyweight.serving.warming import sample_call

Json = dict[str, Any]
MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[^/]+$"}}
VERSION = {**MODEL, "name": "version"}
_WORDS = {
    400: "Wrong input: what is wrong, what was seen, what was expected.",
    401: "A token is needed, unknown, or has expired.",
    403: "What is served can be changed from the service's own machine, or with an administrator's token.",
    404: "No such model or version; says which there are.",
    405: "Another method is taken here.",
    408: "The body did not come whole in time.",
    413: "The body, or the number of candidates, is over the limit.",
    415: "A Content-Encoding that is not read.",
    429: "Too busy; Retry-After says when to try again.",
    500: "A fault of the service.",
    503: "Not ready, ending, or the request waited longer than it may; Retry-After says when to try again.",
}


def describe_routes(repository: Repository) -> Json:
    """Return the document, as OpenAPI 3.1 has it."""
    ready = [entry.versions[entry.answering] for entry in repository.models.values() if entry.answering]
    infer, rank = _examples(ready)
    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    get = {
        "/v2": _get("The server's name, version and extensions", 401),
        "/v1/status": _get("What is served, its certificates, and its last five minutes", 401),
        "/v1/status/models/{model}/samples": _get("Stored requests to send", 401, 404, 503, parameters=[MODEL]),
        "/v2/health/live": _get("Whether the process runs"),
        "/v2/health/ready": _get("Whether requests are welcome", 503),
        model: _get("A model's inputs and outputs", 401, 404, 503, parameters=[MODEL]),
        version: _get("A version's inputs and outputs", 401, 404, 503, parameters=[MODEL, VERSION]),
        f"{model}/ready": _get("Whether a model is ready", 401, 404, 503, parameters=[MODEL]),
        f"{version}/ready": _get("Whether a version is ready", 401, 404, 503, parameters=[MODEL, VERSION]),
    }
    scored = (400, 401, 404, 408, 413, 415, 429, 500, 503)
    changed = (400, 401, 403, 404, 408, 409, 413, 415, 500, 503)
    schema = {"type": "object"}
    post = {
        "/v1/rank": _post("Rank candidates written as objects", "RankRequest", "RankResponse", scored, rank),
        f"{model}/infer": _post("Score candidates", "InferRequest", "InferResponse", scored, infer, [MODEL]),
        f"{version}/infer": _post(
            "Score candidates with one version", "InferRequest", "InferResponse", scored, infer, [MODEL, VERSION]
        ),
        "/v2/repository/index": _post("Which models are here", schema, {"type": "array"}, (400, 401, 408, 413, 415)),
        "/v2/repository/models/{model}/load": _post("Load a model again", schema, schema, changed, None, [MODEL]),
        "/v2/repository/models/{model}/unload": _post("Unload a model", schema, schema, changed, None, [MODEL]),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "flyweight serve", "version": flyweight.__version__, "description": ABOUT},
        "paths": {path: {"get": one} for path, one in get.items()}
        | {path: {"post": one} for path, one in post.items()},
        "components": {"schemas": SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],  # where the service has tokens
    }


ABOUT = (
    "One request is one user and N candidates. /v2 is the Open Inference Protocol v2, as JSON or with binary tensors; "
    "/v1/rank takes and gives what people write."
)
_TENSOR: Json = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "maxItems": 8, "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "enum": [*DATATYPES, BYTES]},
        "data": {"type": "array", "description": "the values, flat or nested; left out where they follow as bytes"},
        "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer", "minimum": 0}}},
    },
}
_SCALARS: Json = {"type": ["number", "string", "boolean", "array"]}
SCHEMAS: Json = {
    "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "minItems": 1, "items": _TENSOR},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"const": SCORES}, "parameters": {"type": "object"}},
                },
            },
            "parameters": {
                "type": "object",
                "properties": {"timeout": {"type": "integer", "minimum": 0, "description": "microseconds of waiting"}},
            },
        },
    },
    "InferResponse": {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": _TENSOR},
        },
    },
    "RankRequest": {
        "type": "object",
        "required": ["candidates"],
        "additionalProperties": False,
        "properties": {
            "request": {"type": "object", "additionalProperties": _SCALARS},
            "candidates": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "additionalProperties": _SCALARS},
                "description": "the candidates' fields; text of an id field is a raw value, looked up in the bundle's "
                "vocabulary, and a number is an id; 'id' is given back and not scored",
            },
            "top_k": {"type": "integer", "minimum": 1},
            "model": {"type": "string", "description": "needed where several are served"},
            "version": {"type": "string"},
            "id": {"type": "string", "description": "the caller's name for the request"},
            "id_field": {"type": "string", "description": "the candidates' field that is given back as 'id'; "
            "without 'id', the first that came as text"},
            "timeout_ms": {"type": "number", "exclusiveMinimum": 0},
        },
    },
    "RankResponse": {
        "type": "object",
        "required": ["model", "version", "ranked"],
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string"},
            "ranked": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["index", "score"],
                    "properties": {"index": {"type": "integer"}, "score": {"type": "number"}, "id": {}},
                },
            },
        },
    },
}


def _get(summary: str, *errors: int, parameters: list[Json] | None = None) -> Json:
    found = {"summary": summary, "responses": _responses({"type": "object"}, errors)}
    return found | ({"parameters": parameters} if parameters else {})


def _post(
    summary: str,
    takes: str | Json,
    gives: str | Json,
    errors: tuple[int, ...],
    examples: Json | None = None,
    parameters: list[Json] | None = None,
) -> Json:
    content: Json = {"schema": _schema(takes)} | ({"examples": examples} if examples else {})
    return {
        "summary": summary,
        "parameters": parameters or [],
        "requestBody": {"required": isinstance(takes, str), "content": {"application/json": content}},
        "responses": _responses(_schema(gives), errors),
    }


def _schema(named: str | Json) -> Json:
    return {"$ref": f"#/components/schemas/{named}"} if isinstance(named, str) else named


def _responses(gives: Json, errors: tuple[int, ...]) -> Json:
    assert set(errors) <= {status.http for status in STATUSES.values()}
    error = {"application/json": {"schema": _schema("Error")}}
    answers = {"200": {"description": "Done", "content": {"application/json": {"schema": gives}}}}
    return answers | {
        str(code): {"description": _WORDS.get(code, "It does not fit what is being served."), "content": error}
        for code in errors
    }


def _examples(ready: list[Served]) -> tuple[Json, Json]:
    """Return a stored request of each model in both forms, three candidates long."""
    infer: Json = {}
    rank: Json = {}
    for served in ready:
        opened = served.opened
        call = sample_call(opened.ranker, opened.takes, 3)
        infer[served.model] = {"value": infer_example({**call.asked, **call.offered}), "x-version": served.version}
        if opened.takes.offered and not opened.takes.flat:
            rank[served.model] = {"value": rank_example(served.model, call.asked, call.offered)}
    return infer, rank


def infer_example(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Json:
    """Return arrays of a request as the protocol v2 takes them."""
    return {"inputs": [_tensor(name, array) for name, array in arrays.items()]}


def rank_example(model: str, asked: Mapping[str, Any], offered: Mapping[str, Any]) -> Json:
    """Return arrays of a request as `/v1/rank` takes them."""
    rows = len(next(iter(offered.values())))
    candidates = [{name: array[row].tolist() for name, array in offered.items()} for row in range(rows)]
    request = {name: array[0].tolist() for name, array in asked.items()}
    return {"model": model, "request": request, "candidates": candidates, "top_k": 20}


def _tensor(name: str, array: np.ndarray[Any, Any]) -> Json:
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": datatype_of(array.dtype),
        "data": array.ravel().tolist(),
    }
