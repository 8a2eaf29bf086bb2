"""Whether the feeds are fresh, by what they say themselves."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from api.files import Files
from contracts.feeds import latest_path
from contracts.products import PRODUCTS


class FeedHead(msgspec.Struct):
    """The part of a JSON feed that tells its freshness."""

    generated_at: datetime
    data_through: datetime | None
    closed_through: datetime | None


def freshness(files: Files, open_folder: Path, stale_after_s: float) -> tuple[bool, dict[str, Any]]:
    """(whether every feed is fresh, the report). A feed is fresh, stale or missing."""
    now = datetime.now(UTC)
    feeds: list[dict[str, Any]] = []
    for name in PRODUCTS:
        try:
            head = msgspec.json.decode(files.read(open_folder / latest_path(name, "json")).data, type=FeedHead)
        except FileNotFoundError:
            feeds.append({"name": name, "state": "missing"})
            continue
        age_s = round((now - head.generated_at).total_seconds(), 3)
        feeds.append(
            {
                "name": name,
                "state": "fresh" if age_s <= stale_after_s else "stale",
                "age_s": age_s,
                **msgspec.structs.asdict(head),
            }
        )
    is_fresh = all(feed["state"] == "fresh" for feed in feeds)
    return is_fresh, {"checked_at": now, "stale_after_s": stale_after_s, "feeds": feeds}
