"""Errors as problem details (RFC 9457): one shape for all of them, on every route."""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.headers import EVERYWHERE

MEDIA_TYPE = "application/problem+json"


class Problem(HTTPException):
    """An error with a sentence for its reader; `members` are extension members of the problem document."""

    def __init__(
        self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None, **members: object
    ) -> None:
        super().__init__(status, detail, headers)
        self.members = members


def problem(
    request: Request, status: int, detail: str, headers: dict[str, str] | None = None, **members: object
) -> Response:
    """A problem document. Its type is about:blank, so its title is the status code's phrase (section 4.2.1)."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": quote(request.scope["path"], safe="/="),
        **members,
    }
    return Response(msgspec.json.encode(document), status, {"Cache-Control": "no-store", **(headers or {})}, MEDIA_TYPE)


async def http_error(request: Request, error: Exception) -> Response:
    """Handler of every HTTPException, Starlette's own 404 and 405 included."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    detail = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = "There is nothing here: /feeds.json lists what there is."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = sorted(method.strip() for method in headers.get("Allow", "").split(","))
        headers["Allow"] = ", ".join(allowed)
        detail = f"{request.method} is not possible here, but {headers['Allow']}."
    members = error.members if isinstance(error, Problem) else {}
    return problem(request, error.status_code, detail, headers, **members)


async def server_error(request: Request, error: Exception) -> Response:
    """Handler of every other exception; says nothing of the inside, which stands in the log."""
    detail = "An error of ours, not of your request; it is logged."
    return problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail, EVERYWHERE)
