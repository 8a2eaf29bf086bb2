"""Files over HTTP: strong validators, conditional and range requests (RFC 9110).

A file that is replaced by rename while it is served is served as it was opened: bytes, validators and length come
from one handle. Formats are chosen by extension and nothing is compressed on the way, so nothing varies.
"""

import hashlib
import math
import os
import re
import time
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from api.problems import Problem

IMMUTABLE = "public, max-age=31536000, immutable"
_KEPT = 256  # files held in memory, the least recently read one leaves first
_ETAGS = re.compile(r'(?:W/)?("[^"]*")')
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True)
class Content:
    """A file as it was read: its bytes, its strong entity tag, its modification time (seconds since 1970)."""

    data: bytes
    etag: str
    modified_s: float

    def last_modified_s(self) -> int:
        """The time for Last-Modified, whole seconds: never before the change, and never after now.

        Rounded up, because a file that is replaced twice within a second must not look unchanged to a client that
        read it between the two; RFC 9110 8.8.2.1 forbids a time after the response's own.
        """
        return min(math.ceil(self.modified_s), math.floor(time.time()))


class Files:
    """Files read once per version: an unchanged one costs a stat."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[tuple[int, int, int], Content]] = {}

    def read(self, path: Path) -> Content:
        """A file's content. Raises FileNotFoundError."""
        stamp = _stamp(os.stat(path))
        kept = self._kept.pop(path, None)
        if kept is None or kept[0] != stamp:
            with path.open("rb") as handle:
                status = os.fstat(handle.fileno())
                data = handle.read()
            content = Content(data, f'"{hashlib.sha256(data).hexdigest()[:32]}"', status.st_mtime)
            kept = (_stamp(status), content)
        self._kept[path] = kept
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return kept[1]


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def respond(request: Request, content: Content, media_type: str, cache_control: str) -> Response:
    """Answer GET or HEAD for a content, in the order of RFC 9110 13.2.2. Raises Problem 412 or 416."""
    headers = {
        "ETag": content.etag,
        "Last-Modified": formatdate(content.last_modified_s(), usegmt=True),
        "Cache-Control": cache_control,
        "Accept-Ranges": "bytes",
    }
    if not _precondition_holds(request, content):
        raise Problem(HTTPStatus.PRECONDITION_FAILED, "The file is not the one that your precondition names.")
    if _is_unchanged(request, content):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    span = _range(request, content)
    if span is None:
        return Response(content.data, headers=headers, media_type=media_type)
    headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{len(content.data)}"
    part = content.data[span.start : span.stop]
    return Response(part, HTTPStatus.PARTIAL_CONTENT, headers, media_type)


def _date_s(text: str) -> float | None:
    """Seconds since 1970 of an HTTP date; None when it is none (RFC 9110: such a field is ignored)."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _precondition_holds(request: Request, content: Content) -> bool:
    named = request.headers.get("if-match")
    if named is not None:
        strong = {tag.strip() for tag in named.split(",")}
        return named.strip() == "*" or content.etag in strong
    since = _date_s(request.headers.get("if-unmodified-since", ""))
    return since is None or content.last_modified_s() <= since


def _is_unchanged(request: Request, content: Content) -> bool:
    named = request.headers.get("if-none-match")
    if named is not None:
        return named.strip() == "*" or content.etag in _ETAGS.findall(named)
    since = _date_s(request.headers.get("if-modified-since", ""))
    return since is not None and content.last_modified_s() <= since


def _range(request: Request, content: Content) -> range | None:
    """The bytes asked for; None for all of them: no range, several (which may be ignored), or an If-Range that names
    another file. A date in If-Range is taken for another file: it cannot tell two changes within a second apart."""
    text = request.headers.get("range")
    if request.method != "GET" or text is None or request.headers.get("if-range", content.etag) != content.etag:
        return None
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return None
    size = len(content.data)
    if match[1]:
        first, last = int(match[1]), min(int(match[2] or size), size - 1)
        if match[2] and int(match[2]) < first:
            return None  # not a valid range: ignored
    else:
        first, last = max(size - int(match[2]), 0), size - 1
        if int(match[2]) == 0:
            first = size
    if first > last:
        raise Problem(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"The file has {size} bytes.",
            {"Content-Range": f"bytes */{size}"},
        )
    return range(first, last + 1)
