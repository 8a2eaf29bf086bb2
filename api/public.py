"""The public app: open files, discovery, health and a landing page. It reads `open/` and nothing else."""

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.config import Config
from api.files import IMMUTABLE, Files, respond
from api.headers import EveryResponse
from api.health import freshness
from api.problems import Problem, http_error, server_error
from contracts.feeds import ARCHIVE, DISCOVERY, FORMATS, LAMPPOST_FORMATS, MANIFEST, lampposts_path, latest_path
from contracts.products import PRODUCTS

Endpoint = Callable[[Request], Awaitable[Response]]

STATIC = Path(__file__).parent / "static"
PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
LATEST_CACHE = "public, max-age=1"  # the feeds are written about once a second
LISTS_CACHE = "public, max-age=10"  # discovery, manifests, lampposts
PAGE_CACHE = "public, max-age=60"
CONTENT_POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'"

_DAY = rf"product=({'|'.join(PRODUCTS)})/date=[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}"
_MANIFESTS = re.compile(rf"({_DAY}/)?{re.escape(MANIFEST)}")
_ARCHIVED = re.compile(rf"{_DAY}/[0-9]{{8}}T[0-9]{{6}}Z-[0-9a-f]{{16}}\.parquet")


def _route(path: str, endpoint: Endpoint) -> Route:
    """A route that answers GET, HEAD and a browser's preflight."""

    async def answer(request: Request) -> Response:
        if request.scope["path"].endswith("\n"):  # the router's `$` lets one line break pass
            raise HTTPException(HTTPStatus.NOT_FOUND)
        if request.method == "OPTIONS":
            headers = {
                "Allow": "GET, HEAD, OPTIONS",
                "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
                "Access-Control-Allow-Headers": "If-Match, If-None-Match, If-Modified-Since, If-Range, Range",
                "Access-Control-Max-Age": "86400",
            }
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
        return await endpoint(request)

    return Route(path, answer, methods=["GET", "OPTIONS"])


def public_app(config: Config) -> Starlette:
    """The app over one `open/` folder, which need not exist yet: until it does, its files are a 503."""
    files = Files()
    open_folder = config.open_folder

    def serve(request: Request, path: Path, media_type: str, cache_control: str, is_expected: bool) -> Response:
        try:
            content = files.read(path)
        except (FileNotFoundError, NotADirectoryError):
            if is_expected or not open_folder.is_dir():
                raise Problem(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "This feed has not been written yet: no release has reached the public side.",
                    {"Retry-After": "5"},
                ) from None
            raise HTTPException(HTTPStatus.NOT_FOUND) from None
        return respond(request, content, media_type, cache_control)

    def fixed(path: Path, media_type: str, cache_control: str) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            return serve(request, path, media_type, cache_control, is_expected=True)

        return endpoint

    def page(path: Path, media_type: str) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            response = respond(request, files.read(path), media_type, PAGE_CACHE)
            response.headers["Content-Security-Policy"] = CONTENT_POLICY
            response.headers["Referrer-Policy"] = "no-referrer"
            return response

        return endpoint

    async def archive(request: Request) -> Response:
        path = request.path_params["path"]
        if _MANIFESTS.fullmatch(path):
            is_index = path == MANIFEST
            return serve(request, open_folder / ARCHIVE / path, FORMATS["json"], LISTS_CACHE, is_expected=is_index)
        if _ARCHIVED.fullmatch(path):
            return serve(request, open_folder / ARCHIVE / path, FORMATS["parquet"], IMMUTABLE, is_expected=False)
        raise HTTPException(HTTPStatus.NOT_FOUND)

    async def health(request: Request) -> Response:
        is_fresh, report = freshness(files, open_folder, config.stale_after_s)
        if not is_fresh:
            late = [feed["name"] for feed in report["feeds"] if feed["state"] != "fresh"]
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"Missing or stale: {', '.join(late)}.", **report)
        headers = {"Cache-Control": "no-store"}
        return Response(msgspec.json.encode({"status": "ok", **report}), 200, headers, FORMATS["json"])

    latest = [
        (latest_path(name, extension), media_type, LATEST_CACHE)
        for name in PRODUCTS
        for extension, media_type in FORMATS.items()
    ]
    lists = [(lampposts_path(extension), FORMATS[extension], LISTS_CACHE) for extension in LAMPPOST_FORMATS]
    lists.append((DISCOVERY, FORMATS["json"], LISTS_CACHE))
    app = Starlette(
        routes=[
            *[_route(path, page(STATIC / name, media_type)) for path, (name, media_type) in PAGE.items()],
            *[_route(f"/{path}", fixed(open_folder / path, kind, cache)) for path, kind, cache in [*latest, *lists]],
            _route(f"/{ARCHIVE}/{{path:path}}", archive),
            _route("/health", health),
        ],
        middleware=[Middleware(EveryResponse)],
        exception_handlers={HTTPException: http_error, Exception: server_error},
    )
    app.router.redirect_slashes = False
    return app
