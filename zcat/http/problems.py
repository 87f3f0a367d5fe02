"""Errors as HTTP: one status for each class, one JSON shape for all.

``{"code": …, "message": …, "detail": …}``: the code is stable and for programs, the message is for people, and
``detail`` repeats the message under the name where the clients of Caterva2 look for it.
"""

import json
import logging
from typing import Any

import falcon

from zcat import errors
from zcat.logs import kv

log = logging.getLogger(__name__)

STATUS_OF: dict[type[errors.ZcatError], int] = {
    errors.ZcatError: 500,
    errors.BadRequest: 400,
    errors.BadName: 400,
    errors.BadSelection: 400,
    errors.TooLarge: 413,
    errors.BadConfig: 500,
    errors.NotFound: 404,
    errors.RootUnknown: 404,
    errors.RootContested: 409,
    errors.RootNotFollowed: 404,
    errors.DatasetUnknown: 404,
    errors.NotReadable: 422,
    errors.BadMessage: 502,
    errors.VerbUnknown: 502,
    errors.Stale: 503,
    errors.Busy: 503,
    errors.Unavailable: 503,
    errors.Timeout: 504,
    errors.Closed: 503,
    errors.BadContent: 502,
    errors.BadChunk: 502,
    errors.CacheInUse: 503,
    errors.StorageFailed: 507,
    errors.AddressInUse: 500,
}
"""A test compares with the tree: a new error without a status cannot be forgotten."""

_CODES = {404: "not-found", 405: "method-not-allowed", 403: "forbidden", 413: "too-large", 416: "bad-range"}
_WORDS = {
    404: "there is nothing at this address; /api/openapi.json describes what there is",
    405: "this address does not take that method; the Allow header names those that it takes",
}
_RETRY_AFTER_S = "1"


def problem(code: str, message: str) -> bytes:
    """Return the body of an error."""
    return json.dumps({"code": code, "message": message, "detail": message}).encode()


def status_of(error: errors.ZcatError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS_OF[cls] for cls in type(error).__mro__ if cls in STATUS_OF)


def code_of_status(status: int) -> str:
    """Return the code of an error that is HTTP's own, not one of our classes."""
    return _CODES.get(status, "bad-request" if status < 500 else "internal")


def install(app: Any) -> None:
    """Make a Falcon app answer all errors in our shape."""
    app.set_error_serializer(_serialize)
    app.add_error_handler(Exception, _unexpected)
    app.add_error_handler(errors.ZcatError, _expected)


def _expected(_req: Any, resp: Any, error: errors.ZcatError, _params: Any) -> None:
    _put(resp, status_of(error), error.code, error.message)


def _serialize(_req: Any, resp: Any, error: falcon.HTTPError) -> None:
    status = error.status_code
    words = _WORDS.get(status) or error.description or error.title or "refused"
    _put(resp, status, code_of_status(status), words)


def _unexpected(req: Any, resp: Any, error: Exception, _params: Any) -> None:
    log.error("request failed %s", kv(method=req.method, path=req.path), exc_info=error)
    _put(resp, 500, "internal", "zcat met an error of its own; its log has the details")


def _put(resp: Any, status: int, code: str, message: str) -> None:
    resp.status = status
    resp.stream = None
    resp.content_type = falcon.MEDIA_JSON
    resp.data = problem(code, message)
    resp.set_header("Cache-Control", "no-store")
    if status == 503:
        resp.set_header("Retry-After", _RETRY_AFTER_S)
