"""The routes about the service itself: a page for people who find it, its health, its description."""

import html
from typing import Any

import falcon

import zcat
from zcat.http.bodies import Answer
from zcat.http.openapi import document
from zcat.http.reads import Reads
from zcat.http.strict_json import dumps

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>zcat</title>
<meta name="viewport" content="width=device-width"></head><body><h1>zcat {version}</h1>
<p>This is a zcat subscriber: it serves n-dimensional datasets of other hosts, and caches what is read.</p>
<ul><li><a href="/api/roots">/api/roots</a>: the roots that are known</li>
<li>/api/list/ROOT, /api/info/ROOT/PATH, /api/fetch/ROOT/PATH?slice_=0:10&amp;fmt=npy</li>
<li><a href="/api/openapi.json">/api/openapi.json</a>: everything it can do</li>
<li><a href="/api/health">/api/health</a>: how it is</li></ul></body></html>
"""
_STRICT = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Home:
    """``/``: what this is."""

    def __init__(self) -> None:
        self._page = _PAGE.format(version=html.escape(zcat.__version__)).encode()

    def on_get(self, _req: Any, resp: Any) -> None:
        """Answer a small page."""
        headers = {"Content-Security-Policy": _STRICT}
        Answer(content_type=falcon.MEDIA_HTML, headers=headers, body=(self._page,)).put(resp)

    on_head = on_get


class Health:
    """``/api/health``."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def on_get(self, _req: Any, resp: Any) -> None:
        """Answer 200 also when degraded: what is cached is still served."""
        headers = {"Cache-Control": "no-store"}
        Answer(content_type=falcon.MEDIA_JSON, headers=headers, body=(dumps(self._reads.health()),)).put(resp)

    on_head = on_get


class OpenApi:
    """``/api/openapi.json``."""

    def __init__(self) -> None:
        self._document = dumps(document())

    def on_get(self, _req: Any, resp: Any) -> None:
        """Answer the description of all routes."""
        Answer(content_type=falcon.MEDIA_JSON, body=(self._document,)).put(resp)

    on_head = on_get
