"""Time as the platform keeps it: UTC microseconds. A block is a minute of event time."""

from datetime import UTC, datetime, timedelta, timezone

US = 1_000_000
MINUTE_US = 60 * US
HONG_KONG = timezone(timedelta(hours=8), "HKT")


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime, exactly."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * US + since.microseconds


def from_us(microseconds: int) -> datetime:
    """Aware UTC datetime of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


def isoformat(moment: datetime) -> str:
    """RFC 3339 in UTC with a Z, microseconds only when there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
