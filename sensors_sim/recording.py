"""The Transport Department's recorded XML ("Traffic speed, volume and road occupancy (raw)"; the smart lampposts'
own feed has the same schema), read as it is: dirt stays, because cleaning is the pipeline's business."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from contracts.payloads import Lane
from contracts.settings import SettingError
from contracts.times import HONG_KONG, to_us

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class RecordedLane:
    """One lane's row: numbers as sent, None where the file has none."""

    lane: str
    speed_kmh: float | None
    occupancy_pct: float | None
    vehicles: int | None
    sd_kmh: float | None
    is_valid: bool


@dataclass(frozen=True)
class RecordedDetector:
    """One detector's half-minute. `detector_id` has no slashes; `direction` is the file's word, stripped, or None."""

    start_us: int
    detector_id: str
    direction: str | None
    lanes: tuple[RecordedLane, ...]


def read(path: Path) -> tuple[list[RecordedDetector], str | None]:
    """Every whole detector of a file, in its order, and a warning when the file is cut off or broken.

    `<date>` is the day before for the period of 00:00 (in every published file): a day is added, and to what follows
    it in the same file. Raises SettingError when the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingError(f"recorded file {path} cannot be read: {error.strerror}") from error
    parser: XMLPullParser[Any] = XMLPullParser(("end",))
    warning = None
    try:
        parser.feed(content)
        parser.close()
    except ParseError as error:
        warning = f"{path} is cut off or broken ({error}): its whole detectors are used"
    found: list[RecordedDetector] = []
    try:
        found.extend(_detectors(parser))
    except ParseError as error:
        warning = f"{path} is cut off or broken ({error}): its whole detectors are used"
    return found, warning


def _detectors(parser: "XMLPullParser[Any]") -> Iterator[RecordedDetector]:
    date = ""
    start: datetime | None = None
    before: datetime | None = None
    for _, element in cast("Iterator[tuple[str, Element]]", parser.read_events()):
        if element.tag == "date":
            date = (element.text or "").strip()
        elif element.tag == "period_from":
            before, start = start or before, _start(date, (element.text or "").strip())
            if start and (re.fullmatch(r"0?0:00:00", (element.text or "").strip()) or (before and start < before)):
                start += _DAY
        elif element.tag == "detector" and start is not None:
            yield RecordedDetector(
                start_us=to_us(start),
                detector_id=_text(element, "detector_id").replace("/", ""),
                direction=_text(element, "direction") or None,
                lanes=tuple(_lane(lane) for lane in element.iter("lane")),
            )
            element.clear()


def _start(date: str, clock: str) -> datetime | None:
    """Hong Kong time, which the files give without an offset; None when it is no time."""
    try:
        return datetime.fromisoformat(f"{date}T{clock}").replace(tzinfo=HONG_KONG)
    except ValueError:
        return None


def _lane(element: Element) -> RecordedLane:
    volume = _number(_text(element, "volume"))
    return RecordedLane(
        lane=_text(element, "lane_id"),
        speed_kmh=_number(_text(element, "speed")),
        occupancy_pct=_number(_text(element, "occupancy")),
        vehicles=None if volume is None else int(volume),
        sd_kmh=_number(_text(element, "s.d.")),
        is_valid=_text(element, "valid").upper() != "N",
    )


def _text(element: Element, tag: str) -> str:
    # Tags are compared, not searched by path: the element s.d. has dots in its name.
    return next((" ".join((child.text or "").split()) for child in element if child.tag == tag), "")


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[+-]?\d+(\.\d*)?", text) else None


def to_lane(row: RecordedLane, direction: str) -> Lane:
    """The row as a device would send it: no classes, no sums. A row without a volume breaks the contract, and its
    message is found in quarantine."""
    return Lane(
        lane=row.lane,
        direction=direction,
        vehicle_count=cast(int, row.vehicles),
        mean_speed_kmh=row.speed_kmh,
        speed_sd_kmh=row.sd_kmh,
        occupancy_pct=row.occupancy_pct,
        is_valid=row.is_valid,
    )
