"""`/metrics` and `/health` of a running ingest."""

from collections.abc import Mapping

from contracts.health import Health
from ingest.loop import Loop
from ingest.metrics import age_s

PATIENCE_S = 10.0


def well(loop: Loop) -> tuple[bool, Mapping[str, int | float | str | None]]:
    """Whether ingest does its work, and if not, why. Called by another thread than the loop's."""
    reasons = []
    if loop.disk.failing_since is not None:
        reasons.append(f"the disk has refused commits for {age_s(loop.disk.failing_since):.0f} s")
    if age_s(loop.unready_since) > PATIENCE_S:
        reasons.append(f"no connection to the broker for {age_s(loop.unready_since):.0f} s")
    if age_s(loop.turned_at) > PATIENCE_S:
        reasons.append(f"the loop has stood still for {age_s(loop.turned_at):.0f} s")
    said: dict[str, int | float | str | None] = {
        "instance": loop.landing.instance,
        "offset": loop.landing.next_offset,
        "why": "; ".join(reasons) or None,
    }
    return not reasons, said


def serve(loop: Loop, address: tuple[str, int]) -> Health:
    """Serve until closed. Raises SettingError when the address cannot be used."""
    link, landing, watch = loop.link, loop.landing, loop.metrics.watch
    watch("next_offset", "Offset that the next message gets.", lambda: landing.next_offset)
    watch("unacknowledged", "Messages received and not acknowledged.", lambda: len(link.inbox) + link.taken)
    watch("inbox_bytes", "Payloads received and not yet in a commit.", lambda: link.inbox_bytes)
    watch("open_segment_age_seconds", "Age of the open segment, 0 without one.", lambda: age_s(landing.opened_at))
    watch("is_connected", "1 while the subscription stands.", lambda: float(link.is_ready))
    watch("disk_failing_seconds", "How long the disk has refused commits.", lambda: age_s(loop.disk.failing_since))
    watch("disk_failing", "1 while the disk refuses.", lambda: float(loop.disk.failing_since is not None))
    return Health(address, loop.metrics.registry, lambda: well(loop), "LAMPLIGHT_INGEST_HEALTH")
