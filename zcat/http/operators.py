"""The routes for those who look after a network: how its brokers and its peers are."""

from collections.abc import Iterable
from typing import Any

import falcon

from zcat.http.bodies import Answer
from zcat.http.reads import Reads
from zcat.http.strict_json import dumps
from zcat.services.survey import as_json

_NO_STORE = {"Cache-Control": "no-store"}


class Brokers:
    """``/api/brokers``: all that are known, and whom each is linked to."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def on_get(self, _req: Any, resp: Any) -> None:
        """Answer what each of them said just now."""
        _put(resp, "brokers", self._reads.survey.brokers())

    on_head = on_get


class Peers:
    """``/api/peers``: publishers and subscribers that the brokers know."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def on_get(self, req: Any, resp: Any) -> None:
        """Answer what brokers say of each; and, without ``ask=0``, what it says itself."""
        _put(resp, "peers", self._reads.survey.peers(req.get_param_as_bool("ask", default=True)))

    on_head = on_get


def _put(resp: Any, name: str, views: Iterable[Any]) -> None:
    body = dumps({name: [as_json(view) for view in views]})
    Answer(content_type=falcon.MEDIA_JSON, headers=_NO_STORE, body=(body,)).put(resp)
