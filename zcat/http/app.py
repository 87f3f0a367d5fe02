"""The HTTP side of a subscriber: one table of routes over what it can read."""

from collections.abc import Iterable
from typing import Any

import falcon

from zcat.config import HttpConfig
from zcat.http import problems
from zcat.http.allowance import Allowance, AnswerLimits
from zcat.http.catalogue import Info, Listing, Roots, Subscribe, Unsubscribe
from zcat.http.download import Download
from zcat.http.fetch import Fetch, FetchChunk, FetchPoints
from zcat.http.operators import Brokers, Peers
from zcat.http.pages import Health, Home, OpenApi
from zcat.http.reads import FrameOf, Reads
from zcat.services.frame_view import FrameView
from zcat.services.preview import PreviewLimits

_EXPOSED = (
    "ETag",
    "Content-Range",
    "Accept-Ranges",
    "X-Zcat-Shape",
    "X-Zcat-Dtype",
    "X-Zcat-Version",
    "X-Zcat-Preview",
    "Server-Timing",
)


def make_app(reads: Reads, config: HttpConfig | None = None, frame_of: FrameOf = FrameView) -> Any:
    """Return the WSGI app.

    Args:
        reads: the subscriber; its methods are called from the server's threads.
        config: limits of answers, and which origins of the Web may read them.
        frame_of: makes a whole frame of a dataset that ``reads`` gave.
    """
    config = config or HttpConfig()
    app = falcon.App(media_type=falcon.MEDIA_JSON, middleware=list(_middleware(config)))
    problems.install(app)
    for template, resource in routes(reads, config, frame_of).items():
        app.add_route(template, resource)
    return app


def routes(reads: Reads, config: HttpConfig, frame_of: FrameOf) -> dict[str, Any]:
    """Return the table: URI template of each route, and what answers there."""
    # two of the largest; and most threads go on answering small questions while some wait for room
    together = Allowance(2 * config.answer_max_bytes, waiters_max=config.threads // 4)
    limits = AnswerLimits(config.answer_max_bytes, config.slice_max_bytes, together)
    previews = PreviewLimits(config.preview_fetch_bytes, config.preview_decode_bytes)
    return {
        "/": Home(),
        "/api/roots": Roots(reads),
        "/api/subscribe/{root:path}": Subscribe(reads, config.cors_origins),
        "/api/unsubscribe/{root:path}": Unsubscribe(reads, config.cors_origins),
        "/api/list/{path:path}": Listing(reads),
        "/api/info/{path:path}": Info(reads),
        "/api/fetch/{path:path}": Fetch(reads, limits, previews, frame_of),
        "/api/points/{path:path}": FetchPoints(reads, limits),
        "/api/chunk/{path:path}": FetchChunk(reads),
        "/api/download/{path:path}": Download(reads, frame_of),
        "/api/health": Health(reads),
        "/api/brokers": Brokers(reads),
        "/api/peers": Peers(reads),
        "/api/openapi.json": OpenApi(),
    }


class _Sniffing:
    """Forbids browsers to guess types, also those of errors."""

    def process_response(self, _req: Any, resp: Any, _resource: Any, _succeeded: bool) -> None:
        """Add the header."""
        resp.set_header("X-Content-Type-Options", "nosniff")


def _middleware(config: HttpConfig) -> Iterable[Any]:
    yield _Sniffing()
    if config.cors_origins:
        yield falcon.CORSMiddleware(allow_origins=config.cors_origins, expose_headers=_EXPOSED)
