"""The public API: validators, ranges, one error shape on every route, freshness, and nothing but `open/`."""

import csv
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

import polars as pl
import pytest
from httpx import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from api import public
from api.config import Config
from api.public import public_app
from contracts.feeds import ARCHIVE, FORMATS, MANIFEST, latest_path
from contracts.products import PRODUCTS
from pipelines.release.feeds import write_latest
from tests.feed_samples import fill, meta, rows


def client_of(open_folder: Path, stale_after_s: float = 60) -> TestClient:
    config = Config(open_folder=open_folder, host="127.0.0.1", port=1, stale_after_s=stale_after_s)
    return TestClient(public_app(config), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "open"
    fill(folder)
    # a file that was replaced in this very second says so with this second, and with the next one a second later
    past = time.time() - 100
    for path in folder.rglob("*"):
        os.utime(path, (past, past))
    return folder


@pytest.fixture
def client(filled: Path) -> Iterator[TestClient]:
    with client_of(filled) as made:
        yield made


def archived(open_folder: Path) -> list[str]:
    root = open_folder / ARCHIVE
    return [f"/{ARCHIVE}/{path.relative_to(root)}" for path in sorted(root.rglob("*")) if path.is_file()]


def feed_urls(open_folder: Path) -> list[str]:
    feeds = json.loads((open_folder / "feeds.json").read_bytes())["feeds"]
    return [form["url"] for feed in feeds for form in feed["formats"].values()]


def every_url(open_folder: Path) -> list[str]:
    return ["/", "/page.css", "/page.js", "/health", "/feeds.json", *feed_urls(open_folder), *archived(open_folder)]


def assert_problem(response: Response, status: int) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["access-control-allow-origin"] == "*"
    document = response.json()
    assert document["status"] == status
    assert {"type", "title", "detail", "instance"} <= document.keys()
    assert document["instance"] == quote(response.request.url.path, safe="/=")


def test_every_route_is_walked(client: TestClient, filled: Path) -> None:
    routes = [route for route in client.app.routes if isinstance(route, Route)]  # type: ignore[attr-defined]
    urls = every_url(filled)
    assert len(routes) == len(client.app.routes)  # type: ignore[attr-defined]
    assert [route.path for route in routes if not any(route.path_regex.match(url) for url in urls)] == []


def test_every_route_answers_get_head_options_and_refuses_the_rest(client: TestClient, filled: Path) -> None:
    for url in every_url(filled):
        got, head, options = client.get(url), client.head(url), client.options(url)
        assert got.status_code == 200, url
        assert got.headers["access-control-allow-origin"] == "*"
        assert "vary" not in got.headers
        assert (head.status_code, options.status_code) == (200, 204)
        if url != "/health":
            for name in ("etag", "last-modified", "content-length", "content-type", "cache-control"):
                assert head.headers[name] == got.headers[name], (url, name)
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            refused = client.request(method, url)
            assert_problem(refused, 405)
            assert refused.headers["allow"] == options.headers["allow"] == "GET, HEAD, OPTIONS"


def test_every_route_has_one_error_shape_when_nothing_is_published(tmp_path: Path, filled: Path) -> None:
    with client_of(tmp_path / "open") as client:
        for url in every_url(filled):
            if url in ("/", "/page.css", "/page.js"):
                assert client.get(url).status_code == 200
                continue
            response = client.get(url)
            assert_problem(response, 503)
            assert_problem_head(client.head(url), 503)
            if url != "/health":
                assert int(response.headers["retry-after"]) > 0


def assert_problem_head(response: Response, status: int) -> None:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


def test_every_route_has_one_error_shape_when_it_breaks(tmp_path: Path, filled: Path) -> None:
    shutil.copytree(filled, tmp_path / "open")
    for url in [*feed_urls(filled), "/feeds.json", *archived(filled)]:
        path = tmp_path / "open" / url.removeprefix("/")
        path.unlink()
        path.mkdir()
    with client_of(tmp_path / "open") as client:
        for url in [*feed_urls(filled), "/feeds.json", *archived(filled), "/health"]:
            response = client.get(url)
            assert_problem(response, 500)
            assert str(tmp_path) not in response.text


@pytest.mark.parametrize(
    "url",
    [
        "/latest",
        "/latest/",
        "/latest/weather.csv/",
        "/latest/weather.csv%0A",
        "/latest/weather.xml",
        "/latest/pedestrian.json",
        "/lampposts.parquet",
        "/archive/v1/",
        "/archive/v1/product=weather/date=2026-11-21/",
        "/archive/v1/product=weather/date=1999-01-01/manifest.json",
        "/archive/v1/product=weather/date=2026-11-21/20261121T080000Z-0000000000000000.parquet",
        "/archive/v1/product=weather/date=2026-11-21/.manifest.json.1.tmp",
        "/archive/v1/product=weather/date=2026-11-21/manifest.json%0A",
        "/archive/v1/../../secret",
        "/archive/v1/%2e%2e/%2e%2e/secret",
        "/archive/v1/product=weather/date=2026-11-21/..%2f..%2f..%2f..%2fsecret",
        "/archive/v1//etc/passwd",
        "/static/page.html",
        "/page.html",
        "/openapi.json",
    ],
)
def test_what_is_not_there_is_a_404(client: TestClient, filled: Path, url: str) -> None:
    (filled.parent / "secret").write_text("secret")
    assert_problem(client.get(url), 404)


def test_feeds_are_served_as_they_lie(client: TestClient, filled: Path) -> None:
    for name, media_type in FORMATS.items():
        for product in PRODUCTS:
            response = client.get(f"/{latest_path(product, name)}")
            assert response.content == (filled / latest_path(product, name)).read_bytes()
            assert response.headers["content-type"] == media_type
            assert response.headers["cache-control"] == "public, max-age=1"
    lines = list(csv.reader(io.StringIO(client.get("/latest/weather.csv").text, newline="")))
    assert lines[0] == PRODUCTS["weather"].schema.names


def test_archived_files_are_immutable_and_found_through_the_manifest(client: TestClient) -> None:
    found = 0
    for day in client.get(f"/{ARCHIVE}/{MANIFEST}").json()["days"]:
        for file in client.get(f"/{ARCHIVE}/{day['manifest']}").json()["files"]:
            response = client.get(f"/{ARCHIVE}/{file['path']}")
            assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert len(response.content) == file["bytes"]
            assert pl.read_parquet(io.BytesIO(response.content)).height == file["rows"]
            found += 1
    assert found == len(PRODUCTS)


def test_a_known_file_is_not_sent_again(client: TestClient, filled: Path) -> None:
    for url in every_url(filled):
        if url == "/health":
            continue
        first = client.get(url)
        etag, date = first.headers["etag"], first.headers["last-modified"]
        assert re.fullmatch(r'"[^"]+"', etag)
        for headers in (
            {"If-None-Match": etag},
            {"If-None-Match": f'"other", W/{etag}'},
            {"If-None-Match": "*"},
            {"If-Modified-Since": date},
            {"If-None-Match": etag, "If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        ):
            for method in ("GET", "HEAD"):
                again = client.request(method, url, headers=headers)
                assert (again.status_code, again.content) == (304, b""), (url, headers)
                assert (again.headers["etag"], again.headers["cache-control"]) == (etag, first.headers["cache-control"])
        for headers in (
            {"If-None-Match": '"other"'},
            {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
            {"If-Modified-Since": "yesterday"},
            # If-None-Match decides where both stand (RFC 9110 13.1.3)
            {"If-None-Match": '"other"', "If-Modified-Since": date},
        ):
            assert client.get(url, headers=headers).status_code == 200, (url, headers)
        assert_problem(client.get(url, headers={"If-Match": '"other"'}), 412)
        assert client.get(url, headers={"If-Match": etag}).status_code == 200
        assert_problem(client.get(url, headers={"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}), 412)


def test_a_changed_file_has_other_validators_even_within_a_second(tmp_path: Path) -> None:
    product, path = PRODUCTS["weather"], tmp_path / latest_path("weather", "json")
    write_latest(tmp_path, product, rows(product, seed=1), meta(product))
    second = int(time.time()) - 100
    with client_of(tmp_path) as client:
        os.utime(path, (second + 0.2, second + 0.2))
        first = client.get("/latest/weather.json")
        assert parsedate_to_datetime(first.headers["last-modified"]).timestamp() == second + 1
        write_latest(tmp_path, product, rows(product, seed=2), meta(product))
        os.utime(path, (second + 0.8, second + 0.8))
        assert client.get("/latest/weather.json", headers={"If-None-Match": first.headers["etag"]}).status_code == 200
        # a client that read it in that very second was told that second, not the next
        told = {"If-Modified-Since": formatdate(second, usegmt=True)}
        assert client.get("/latest/weather.json", headers=told).status_code == 200


def test_last_modified_is_never_after_now(tmp_path: Path) -> None:
    product = PRODUCTS["air"]
    write_latest(tmp_path, product, rows(product), meta(product))
    with client_of(tmp_path) as client:
        told = parsedate_to_datetime(client.get("/latest/air.csv").headers["last-modified"])
    assert told <= datetime.now(UTC)


def test_parts_of_a_file(client: TestClient, filled: Path) -> None:
    url = next(url for url in archived(filled) if url.endswith(".parquet"))
    whole = client.get(url)
    size, etag = len(whole.content), whole.headers["etag"]
    assert whole.headers["accept-ranges"] == "bytes"
    for text, first, end in (
        ("bytes=0-3", 0, 4),
        (f"bytes=4-{size + 100}", 4, size),
        ("bytes=-8", size - 8, size),
        (f"bytes=-{size * 2}", 0, size),
        ("bytes=10-", 10, size),
        (f"bytes={size - 1}-", size - 1, size),
    ):
        for headers in ({"Range": text}, {"Range": text, "If-Range": etag}):
            part = client.get(url, headers=headers)
            assert (part.status_code, part.content) == (206, whole.content[first:end]), text
            assert part.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
            assert part.headers["etag"] == etag
    for text in (f"bytes={size}-", "bytes=-0"):
        refused = client.get(url, headers={"Range": text})
        assert_problem(refused, 416)
        assert refused.headers["content-range"] == f"bytes */{size}"
    for headers in (
        {"Range": "bytes=0-3", "If-Range": '"other"'},
        {"Range": "bytes=0-3", "If-Range": whole.headers["last-modified"]},
        {"Range": "bytes=0-1,4-5"},
        {"Range": "bytes=5-2"},
        {"Range": "bytes=-"},
        {"Range": "lines=0-3"},
        {"Range": "bytes=0x1-3"},
    ):
        assert client.get(url, headers=headers).content == whole.content
    assert client.head(url, headers={"Range": "bytes=0-3"}).status_code == 200
    assert client.get(url, headers={"Range": "bytes=0-3", "If-None-Match": etag}).status_code == 304


def test_a_browser_may_ask_from_any_page(client: TestClient) -> None:
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "GET"}
    preflight = client.options("/latest/weather.json", headers=headers)
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "If-None-Match" in preflight.headers["access-control-allow-headers"]
    assert "POST" not in preflight.headers["access-control-allow-methods"]


def test_health_follows_what_the_feeds_say(tmp_path: Path) -> None:
    with client_of(tmp_path / "open", stale_after_s=60) as client:
        missing = client.get("/health")
        assert_problem(missing, 503)
        assert {feed["state"] for feed in missing.json()["feeds"]} == {"missing"}
        fill(tmp_path / "open")
        fresh = client.get("/health")
        assert (fresh.status_code, fresh.headers["cache-control"]) == (200, "no-store")
        assert {feed["state"] for feed in fresh.json()["feeds"]} == {"fresh"}
        # the file is new, what it says is old: the file's age does not count
        product = PRODUCTS["air"]
        old = meta(product, now=datetime.now(UTC) - timedelta(seconds=61))
        write_latest(tmp_path / "open", product, rows(product), old)
        stale = client.get("/health")
        assert_problem(stale, 503)
        states = {feed["name"]: feed["state"] for feed in stale.json()["feeds"]}
        assert states == {"weather": "fresh", "air": "stale", "traffic": "fresh"}
        assert "air" in stale.json()["detail"]


def test_a_reader_gets_a_whole_file_while_feeds_are_replaced(tmp_path: Path) -> None:
    product = PRODUCTS["weather"]
    with client_of(tmp_path) as client:
        for seed in range(30):
            write_latest(tmp_path, product, rows(product, count=seed, seed=seed), meta(product))
            response = client.get("/latest/weather.json")
            assert int(response.headers["content-length"]) == len(response.content)
            assert len(response.json()["rows"]) == seed


def test_the_page_stands_alone_and_links_every_feed(client: TestClient, filled: Path) -> None:
    page = client.get("/")
    links = set(re.findall(r'(?:href|src)="([^"]+)"', page.text))
    assert set(feed_urls(filled)) <= links
    outside = {link for link in links if link.startswith("http")}
    assert outside == {"https://creativecommons.org/licenses/by/4.0/"}
    for link in sorted(links - outside):
        if link.startswith("/"):
            assert client.get(link).status_code == 200, link
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for needed in (
        'lang="en"',
        "<main>",
        "<header>",
        "<footer>",
        "Simulated data",
        "Noise",
        "Suppressed",
        "Attribution",
    ):
        assert needed in page.text


def test_the_public_app_opens_files_of_its_folder_only(filled: Path, client: TestClient) -> None:
    opened: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if is_watching and event == "open":
            opened.append(str(arguments[0]))

    is_watching = True
    sys.addaudithook(watch)
    try:
        for url in every_url(filled):
            client.get(url)
    finally:
        is_watching = False
    own = (str(filled), str(Path(public.__file__).parent / "static"))
    assert opened
    assert [path for path in opened if not path.startswith(own)] == []
