"""`POST /v1/rank`: a request and its candidates as people write them, ranked ids and scores back."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flyweight.serving.answering import Desk
from flyweight.serving.call import Takes, named
from flyweight.serving.caller import REQUEST_ID, Caller, caller_of
from flyweight.serving.datatypes import BYTES, MAX_DIMENSIONS, array_of_values
from flyweight.serving.degraded import DEGRADED_ROWS, degraded_rows
from flyweight.serving.json_body import kind_of
from flyweight.serving.refusal import Refusal, shown
from flyweight.serving.routes import read_object
from flyweight.serving.tensors import Tensors

KEYS = ("request", "candidates", "top_k", "model", "version", "id_field", "id", "timeout_ms")
#: The key of a candidate that is given back and not scored.
ID = "id"


class RankRoute:
    """The handler of `/v1/rank`.

    Args:
        desk: where requests are handed in.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Return the one route."""
        return [Route("/v1/rank", self._rank, methods=["POST"])]

    async def _rank(self, request: Request) -> Response:
        caller = request.scope["caller"] = caller_of(dict(request.scope["headers"]))
        answer = await self._answer(request, caller)
        headers = {REQUEST_ID.decode(): caller.named()}
        body = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(body, headers=headers, media_type="application/json")

    async def _answer(self, request: Request, caller: Caller) -> dict[str, Any]:
        model = ""
        try:
            body = await self._read(request)
            model, version = self._model(body), _text(body, "version")
            served = self._desk.repository.answerer(model, version, {})
            inputs = columns_of(served.opened.takes, body.get("request", {}), body.get("candidates"))
            tensors = Tensors(inputs, _text(body, "id") or "", parameters=_timeout(body))
            top, id_field = _top(body), _id_field(body, served.opened.takes)
        except Refusal as refusal:
            self._desk.refuse("rank", model, refusal, caller)
            raise
        told = await self._desk.answer("rank", model, version, tensors, caller)
        assert told.scores is not None
        ranked = rank_scores(told.scores, body["candidates"], top, id_field)
        answer = {"model": model, "version": told.version, "ranked": ranked}
        degraded = degraded_rows(told.scores)
        return {**answer, DEGRADED_ROWS: degraded} if degraded else answer

    async def _read(self, request: Request) -> dict[str, Any]:
        settings = self._desk.repository.settings
        body = await read_object(request, settings.max_body, settings.read_seconds)
        if not body:
            raise Refusal(f"The request is empty; a ranking is a JSON object with {', '.join(KEYS[:2])} and more.")
        odd = next((key for key in body if key not in KEYS), None)
        if odd is not None:
            raise Refusal(f"Key {odd[:60]!r} is not known; a ranking takes {', '.join(KEYS)}.")
        return body

    def _model(self, body: Mapping[str, Any]) -> str:
        name = _text(body, "model")
        models = self._desk.repository.models
        if name is None and len(models) != 1:
            raise Refusal(f"Several models are served; name one with 'model': {', '.join(sorted(models))}.")
        return next(iter(models)) if name is None else name


def columns_of(takes: Takes, request: Any, candidates: Any) -> dict[str, NDArray[Any]]:
    """Return the arrays of a request written as objects: one for the request, one for each candidate.

    Raises:
        Refusal: a field is missing, unknown or of another kind than the others; says of which candidate.
    """
    if takes.flat or not takes.offered:
        why = "takes no candidates" if not takes.offered else "has inputs with lengths of their own"
        raise Refusal(f"Model {takes.model!r} {why}, so there is nothing to rank; send tensors to /v2.")
    if not isinstance(request, dict):
        raise Refusal(f"'request' must be an object of the request's fields; seen {kind_of(request)}.")
    if not isinstance(candidates, list) or not candidates:
        seen = "an empty list" if candidates == [] else "nothing" if candidates is None else kind_of(candidates)
        raise Refusal(f"'candidates' must be a list of 1 to {takes.most:,} objects; seen {seen}.")
    if len(candidates) > takes.most:
        raise Refusal(
            f"The request has {len(candidates):,} candidates; model {takes.model!r} takes up to {takes.most:,} at once "
            "(--max-candidates). Send them in parts.",
            "too_large",
        )
    _check_keys("'request'", request, takes.asked)
    for place, candidate in enumerate(candidates):
        if not isinstance(candidate, dict):
            raise Refusal(f"Candidate {place} must be an object of its fields; seen {kind_of(candidate)}.")
        if candidate.keys() != takes.offered.keys():
            _check_keys(f"Candidate {place}", candidate, takes.offered)
    asked = {name: _column(takes, name, [request[name]]) for name in takes.asked}
    return asked | {name: _column(takes, name, [one[name] for one in candidates]) for name in takes.offered}


def _check_keys(where: str, given: Mapping[str, Any], due: Mapping[str, Any]) -> None:
    for name in given:
        if name not in due and name != ID:
            near = get_close_matches(name[:80], due, 1, 0.6)  # of megabytes it takes seconds
            hint = f"; the nearest is {near[0]!r}" if near else f"; it takes {named(list(due))}"
            raise Refusal(f"{where} has the field {name[:60]!r}, which the model does not take{hint}.")
    lost = [repr(name) for name in due if name not in given]
    if lost:
        fields = "field" if len(lost) == 1 else "fields"
        raise Refusal(f"{where} lacks the {fields} {named(lost)}; it has {named(sorted(given))}.")


def _column(takes: Takes, name: str, values: list[Any]) -> NDArray[Any]:
    """Return a field's values, one a row: numbers, truths, texts, or lists of these of one shape."""
    flat, shape = values, [len(values)]
    while isinstance(flat[0], list) and len(shape) < MAX_DIMENSIONS:
        lengths = {len(one) if isinstance(one, list) else -1 for one in flat}
        if len(lengths) != 1 or -1 in lengths:
            raise Refusal(f"Field {name!r} differs in length from place to place; pad it to one length.")
        shape.append(lengths.pop())
        flat = [value for one in flat for value in one]
        if not flat:
            break
    ids = takes.asked[name] if name in takes.asked else takes.offered[name]
    _check_values(name, ids, flat, len(values))
    return array_of_values(name, _datatype(flat), _as_texts(takes, name, flat)).reshape(shape)


def _check_values(name: str, ids: bool, flat: list[Any], rows: int) -> None:
    kinds = set(map(type, flat))
    due = {int, str} if ids else {int, float}
    if kinds <= due or (kinds == {bool} and not ids):
        return
    odd = next(place for place, value in enumerate(flat) if type(value) not in due)
    where = f" of candidate {odd * rows // len(flat)}" if rows > 1 else ""
    takes = "whole numbers, or text where it has a vocabulary" if ids else "numbers"
    raise Refusal(f"Field {name!r}{where} is {shown(flat[odd])}; it takes {takes}.")


def _datatype(values: list[Any]) -> str:
    kinds = {type(value) for value in values}
    if str in kinds:
        return BYTES
    return "INT64" if kinds <= {int} else "BOOL" if kinds == {bool} else "FP64"


def _as_texts(takes: Takes, name: str, values: list[Any]) -> list[Any]:
    """Return whole numbers among texts as texts too, where both are ids.

    Where there is a vocabulary texts are raw values and numbers are ids: a number must not mean another thing for the
    company that it is in.
    """
    kinds = set(map(type, values))
    if str not in kinds or int not in kinds:
        return values
    if name in takes.vocabularies.sizes:
        number = next(value for value in values if type(value) is int)
        raise Refusal(
            f"Field {name!r} mixes texts, which are raw values, with whole numbers, which are ids; seen {number}. "
            f'Give all as one of them: "{number}" is a raw value.'
        )
    return [str(value) if type(value) is int else value for value in values]


def raw_field(takes: Takes, candidates: list[dict[str, Any]]) -> str | None:
    """Return the field that names the candidates where they have no `id`: the first that came as text, if any did."""
    if any(ID in one for one in candidates):
        return None
    return next((name for name in takes.offered if isinstance(candidates[0][name], str)), None)


def rank_scores(
    scores: NDArray[Any], candidates: list[dict[str, Any]], top: int, id_field: str
) -> list[dict[str, Any]]:
    """Return the best candidates, best first; equal scores keep the order in which they came.

    Raises:
        Refusal: there are several scores a candidate.
    """
    if scores.ndim != 1:
        raise Refusal(f"The model gives {scores.shape[1:]} scores a candidate, which are no ranking; use /v2.")
    ranked = []
    for place in np.argsort(-scores, kind="stable")[:top].tolist():
        one = {"index": place, "score": scores[place]}
        if id_field in candidates[place]:
            one[ID] = candidates[place][id_field]
        ranked.append(one)
    return ranked


def _id_field(body: Mapping[str, Any], takes: Takes) -> str:
    """Return the candidates' field that is given back as their id; one that was asked for must be in each."""
    field = _text(body, "id_field")
    if field is None:
        return raw_field(takes, body["candidates"]) or ID
    for place, candidate in enumerate(body["candidates"]):
        if field not in candidate:
            seen = ", ".join(sorted(candidate))
            raise Refusal(f"id_field {field[:60]!r} is no field of candidate {place}; it has {seen}.")
    return field


def _top(body: Mapping[str, Any]) -> int:
    top = body.get("top_k")
    if top is None:
        return len(body["candidates"])
    if type(top) is not int or top < 1:
        raise Refusal(f"top_k must be a whole number from 1 on; seen {shown(top)}.")
    return top


def _text(body: Mapping[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise Refusal(f"{key!r} must be a string; seen {kind_of(value)}.")
    return value


def _timeout(body: Mapping[str, Any]) -> dict[str, Any]:
    value = body.get("timeout_ms")
    if value is None:
        return {}
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise Refusal(f"timeout_ms must be milliseconds, a number above 0; seen {shown(value)}.")
    return {"timeout": value * 1e3}
