"""The API as an OpenAPI 3.1 document. A test compares it with the routes of the app."""

from typing import Any

import zcat
from zcat.http.query import FORMATS
from zcat.model.reduction import Reduce

_JSON = "application/json"
_BINARY = "application/octet-stream"


def document() -> dict[str, Any]:
    """Return the document. HEAD is answered wherever GET is, and not written down."""
    path = _parameter("path", "path", "root/path/of/the/dataset; a contested root is written root@owner")
    root = _parameter("root", "path", "name, or name@owner")
    fetch = _query_fields()
    data = {
        "200": _answer(_BINARY, "the part; X-Zcat-Shape, X-Zcat-Dtype and X-Zcat-Version say what it is"),
        "206": _answer(_BINARY, "ranges of the whole dataset, several as multipart/byteranges"),
        "304": {"description": "the client's copy is current"},
        "416": _problem("no such range, or a computed answer"),
    }
    file = {**data, "200": _answer(_BINARY, "the file")}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "zcat subscriber",
            "version": zcat.__version__,
            "description": "Read n-dimensional datasets of a zcat network. The clients of Caterva2 work on it.",
        },
        "paths": {
            "/": {"get": _operation("What this is", [], {"200": _answer("text/html", "a page")})},
            "/api/roots": {"get": _operation("The roots that are known, by name", [])},
            "/api/subscribe/{root}": {"post": _operation("Follow a root", [root])},
            "/api/unsubscribe/{root}": {"post": _operation("Stop following a root", [root])},
            "/api/list/{path}": {
                "get": _operation("All datasets below a root or folder", [path, _details()]),
            },
            "/api/info/{path}": {"get": _operation("What a dataset or folder is", [path])},
            "/api/fetch/{path}": {
                "get": _operation("A part of a dataset, or all of it", [path, *_as_query(fetch)], data),
                "post": _operation("The same, for keys too long for a URL", [path], data) | _fields(fetch),
            },
            "/api/points/{path}": {
                "post": _operation("Single items", [path, _format(("raw", "chunks"))], data) | _coordinates(),
            },
            "/api/chunk/{path}": {
                "get": _operation("One compressed Blosc2 chunk", [path, _nchunk()], data),
            },
            "/api/download/{path}": {"get": _operation("The dataset as a file", [path], file)},
            "/api/health": {"get": _operation("How the subscriber is", [])},
            "/api/brokers": {"get": _operation("The brokers, how each is and whom it is linked to", [])},
            "/api/peers": {"get": _operation("Publishers and subscribers that the brokers know", [_ask()])},
            "/api/openapi.json": {"get": _operation("This document", [])},
        },
        "components": {"schemas": {"Problem": _problem_schema()}},
    }


def _query_fields() -> dict[str, dict[str, Any]]:
    def text(description: str) -> dict[str, Any]:
        return {"type": "string", "description": description}

    return {
        "slice_": text("NumPy's notation: 10:74, 5, ..., ::-2; empty is all"),
        "indices": text('JSON, one entry per axis: [[1,5,9], 450, "0:10", null]'),
        "field": text("a field of a structured dtype"),
        "fmt": {"type": "string", "enum": list(FORMATS), "default": "cframe"},
        "fit": text(
            "the most items along each of the last axes of the part, rows x columns: 1024x768, or 1000; "
            "X-Zcat-Preview says what was done, as JSON: exact, reduce, factors, chunks, chunks_of"
        ),
        "reduce": {"type": "string", "enum": [way.value for way in Reduce], "default": Reduce.MEAN.value},
        "exact": text("true: the preview is made of all items, however long that takes; else maybe of a sample"),
        "max_bytes": text("a larger answer, uncompressed, is refused with 413, and the message has both figures"),
        "filter": text("refused: conditions on items are not offered"),
    }


def _as_query(fields: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]


def _format(names: tuple[str, ...]) -> dict[str, Any]:
    return {"name": "fmt", "in": "query", "schema": {"type": "string", "enum": list(names), "default": names[0]}}


def _details() -> dict[str, Any]:
    return {"name": "details", "in": "query", "schema": {"type": "boolean", "default": False}}


def _ask() -> dict[str, Any]:
    description = "ask each of them, too, and not only the brokers"
    return {
        "name": "ask",
        "in": "query",
        "description": description,
        "schema": {"type": "boolean", "default": True},
    }


def _nchunk() -> dict[str, Any]:
    return {"name": "nchunk", "in": "query", "required": True, "schema": {"type": "integer", "minimum": 0}}


def _parameter(name: str, place: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": True, "description": description, "schema": {"type": "string"}}


def _operation(
    summary: str, parameters: list[dict[str, Any]], responses: dict[str, Any] | None = None
) -> dict[str, Any]:
    answers = responses or {"200": _answer(_JSON, "the answer")}
    return {
        "summary": summary,
        "parameters": parameters,
        "responses": {**answers, "default": _problem("an error")},
    }


def _answer(media: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": {media: {}}}


def _problem(description: str) -> dict[str, Any]:
    content = {_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}


def _problem_schema() -> dict[str, Any]:
    names = ("code", "message", "detail")
    return {"type": "object", "required": list(names), "properties": {name: {"type": "string"} for name in names}}


def _coordinates() -> dict[str, Any]:
    description = "int64 coordinates, little-endian, (npoints, ndim)"
    return {"requestBody": {"required": True, "description": description, "content": {_BINARY: {}}}}


def _fields(fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    schema = {"type": "object", "properties": fields, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {_JSON: {"schema": schema}}}}
