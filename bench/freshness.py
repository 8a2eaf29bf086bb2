"""`make bench-freshness`: the whole city at the pilot's load, seen from outside.

`freshness.catalogue_p95_s`: from a reading's publication to its being in the published catalogue, by asking DuckDB.
`freshness.open_p95_s`: from the close of an exact product's window to the first feed over HTTP that shows the window
closed. Windows are a minute instead of five here, so that forty closes of two products take twenty minutes.
"""

import argparse
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import httpx

from bench.figures import figure
from contracts.times import to_us
from tests.broker import free_port
from tests.end_to_end.city import City, wait_for
from warehouse.query import open_catalogue

WINDOW_S = 60
LOOK_S = 0.2
PRODUCTS = ("weather", "air")


class Catalogue:
    """Ages of readings when they first show in the catalogue, seconds."""

    def __init__(self, path: Path):
        self.path = path
        self.ages: list[float] = []
        self._newest: dict[tuple[str, str], int] = {}
        self._stamp = 0

    def look(self) -> None:
        """Ask for each post's newest reading, when a new catalogue is there."""
        stamp = self.path.stat().st_mtime_ns
        if stamp == self._stamp:
            return
        is_first, self._stamp = self._stamp == 0, stamp
        with open_catalogue(self.path) as connection:
            rows = connection.execute(
                "SELECT post_id, stream, epoch_us(max(event_time)) FROM observations"
                " WHERE event_time > now() - INTERVAL 3 MINUTE GROUP BY ALL"
            ).fetchall()
        now = time.time()
        for post_id, stream, newest_us in rows:
            before = self._newest.get((post_id, stream), 0)
            if newest_us > before:
                self._newest[post_id, stream] = newest_us
                if not is_first:
                    self.ages.append(now - newest_us / 1e6)


class Closes:
    """Seconds from the close of each product's windows to the feed that shows them closed."""

    def __init__(self, client: httpx.Client):
        self.client = client
        self.delays: list[float] = []
        self._closed: dict[str, int] = {}
        self._tags: dict[str, str] = {}

    def look(self) -> None:
        """Fetch the feeds as a client that knows their ETags."""
        for product in PRODUCTS:
            answer = self.client.get(
                f"/latest/{product}.json", headers={"If-None-Match": self._tags.get(product, '"none"')}
            )
            if answer.status_code != 200:
                continue
            now = time.time()
            self._tags[product] = answer.headers["etag"]
            feed = answer.json()
            ends = [
                to_us(datetime.fromisoformat(row["window_end"])) for row in feed["rows"] if not row["is_provisional"]
            ]
            if not ends:
                continue
            before = self._closed.get(product)
            self._closed[product] = max(ends)
            if before is not None and max(ends) > before:
                self.delays.append(now - max(ends) / 1e6)


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main(argv: list[str]) -> int:
    """Run the benchmark; the exit code is 1 when a figure could not be measured."""
    top = argparse.ArgumentParser(prog="python -m bench.freshness", description=__doc__)
    top.add_argument("--closes", type=int, default=40, help="closes of windows to wait for, both products together")
    arguments = top.parse_args(argv)
    port, api_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        city = City(Path(folder), port, LAMPLIGHT_API_PORT=str(api_port), LAMPLIGHT_WINDOW_S=str(WINDOW_S))
        try:
            city.run("sensors_sim", "fleet")
            city.start("ingest", "broker")
            city.start("demo", "after-broker", sys.executable, "-m", "ingest", "run", "--subscription", "plain")
            city.start("pipelines", "run")
            city.start("warehouse", "publish", "--follow")
            city.start("api", "run")
            wait_for("ingest", lambda: "durable" in city.progress("ingest"))
            city.start("sensors_sim", "publish", "--faults", "none")
            wait_for("the catalogue", city.layout.catalogue.exists)
            wait_for("the feeds", (city.layout.open / "latest" / "air.json").exists)
            catalogue = Catalogue(city.layout.catalogue)
            with httpx.Client(base_url=f"http://127.0.0.1:{api_port}", timeout=10) as client:
                closes = Closes(client)
                until = time.monotonic() + WINDOW_S * (arguments.closes / len(PRODUCTS) + 5)
                while len(closes.delays) < arguments.closes and time.monotonic() < until:
                    catalogue.look()
                    closes.look()
                    time.sleep(LOOK_S)
                    if int(time.monotonic()) % 60 == 0:
                        print(f"{len(closes.delays)} closes, {len(catalogue.ages)} readings", file=sys.stderr)
        finally:
            city.close()
    for name, values, least in (
        ("freshness.catalogue_p95_s", catalogue.ages, 1000),
        ("freshness.open_p95_s", closes.delays, arguments.closes),
    ):
        if len(values) < least:
            print(f"{name}: only {len(values)} samples", file=sys.stderr)
            return 1
        figure(name, value=percentile(values, 0.95), unit="s")
        figure(name.replace("p95", "p50"), value=percentile(values, 0.5), unit="s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
