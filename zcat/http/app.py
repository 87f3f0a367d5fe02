"""The HTTP side of a subscriber: one table of routes over what it can read."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

import falcon

from zcat.config import HttpConfig
from zcat.http import problems
from zcat.http.allowance import Allowance, AnswerLimits
from zcat.http.at_hand import ReadsAtHand, SmallAllowance, may_be_at_hand, no_frame, reraise
from zcat.http.catalogue import Info, Listing, Roots, Subscribe, Unsubscribe
from zcat.http.download import Download
from zcat.http.fetch import Fetch, FetchChunk, FetchPoints
from zcat.http.operators import Brokers, Peers
from zcat.http.pages import Health, Home, OpenApi
from zcat.http.reads import FrameOf, Reads
from zcat.services.at_hand import NotAtHand
from zcat.services.frame_view import FrameView
from zcat.services.preview import PreviewLimits

FalconApp: TypeAlias = falcon.App[falcon.Request, falcon.Response]
A = TypeVar("A", bound=FalconApp)

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


class App(FalconApp):
    """The WSGI app, and beside it what of that takes no more than a moment."""

    _quick: FalconApp
    _quick_paths: tuple[str, ...]

    def at_hand(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[Any]:
        """Answer a request as the app itself does, unless that would take longer.

        Raises:
            NotAtHand: it would; nothing has been done.
        """
        if not environ["PATH_INFO"].startswith(self._quick_paths) or not may_be_at_hand(environ):
            raise NotAtHand
        return self._quick(environ, start_response)

    def answer_at_hand_by(self, quick: FalconApp, routes: Mapping[str, Any]) -> None:
        """Take the app that answers in a moment, and its routes."""
        self._quick = quick
        self._quick_paths = tuple([template.partition("{")[0] for template in routes])


def make_app(reads: Reads, config: HttpConfig | None = None, frame_of: FrameOf = FrameView) -> App:
    """Return the WSGI app.

    Args:
        reads: the subscriber; its methods are called from the server's threads.
        config: limits of answers, and which origins of the Web may read them.
        frame_of: makes a whole frame of a dataset that ``reads`` gave.
    """
    config = config or HttpConfig()
    app = _furnished(App, config, routes(reads, config, frame_of))
    quick_routes = routes_at_hand(ReadsAtHand(reads), config)
    quick = _furnished(FalconApp, config, quick_routes)
    quick.add_error_handler(NotAtHand, reraise)
    app.answer_at_hand_by(quick, quick_routes)
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


def routes_at_hand(reads: Reads, config: HttpConfig) -> dict[str, Any]:
    """Return the routes of what may be answered in a moment, over reads that never wait."""
    limits = AnswerLimits(config.answer_max_bytes, config.slice_max_bytes, SmallAllowance())
    previews = PreviewLimits(config.preview_fetch_bytes, config.preview_decode_bytes)
    return {
        "/api/info/{path:path}": Info(reads),
        "/api/fetch/{path:path}": Fetch(reads, limits, previews, no_frame),
    }


class _Sniffing:
    """Forbids browsers to guess types, also those of errors."""

    def process_response(self, _req: Any, resp: Any, _resource: Any, _succeeded: bool) -> None:
        """Add the header."""
        resp.set_header("X-Content-Type-Options", "nosniff")


def _furnished(kind: type[A], config: HttpConfig, routes: Mapping[str, Any]) -> A:
    app = kind(media_type=falcon.MEDIA_JSON, middleware=list(_middleware(config)))
    problems.install(app)
    for template, resource in routes.items():
        app.add_route(template, resource)
    return app


def _middleware(config: HttpConfig) -> Iterable[Any]:
    yield _Sniffing()
    if config.cors_origins:
        yield falcon.CORSMiddleware(allow_origins=config.cors_origins, expose_headers=_EXPOSED)
