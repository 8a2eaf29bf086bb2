"""Topic grammar.

Devices write below `lamplight/v1/`; what they are told lies elsewhere, so that a device's right to write
under its own name is never a right to forge a receipt.
"""

import re
from functools import lru_cache

from contracts.streams import STREAMS

# HKO's interface allows eight characters (DF3633); replayed detectors keep the Transport Department's longer ids
# (AID01101, TDSCPRHSK10001).
POST_ID = re.compile(r"[A-Z]{2,10}[0-9]{4,5}")
_DEVICE = re.compile(rf"lamplight/v1/({POST_ID.pattern})/({'|'.join(STREAMS)})")

SUBSCRIPTION = "lamplight/v1/#"
# each message goes to one of the ingest instances
SHARED_SUBSCRIPTION = f"$share/ingest/{SUBSCRIPTION}"


def device_topic(post_id: str, stream: str) -> str:
    """Where a post (or, for its status, a gateway) publishes a stream."""
    return f"lamplight/v1/{post_id}/{stream}"


def receipt_topic(post_id: str) -> str:
    """Where the platform tells a post what has landed."""
    return f"lamplight/receipt/v1/{post_id}"


def config_topic(post_id: str) -> str:
    """Where the platform tells a post its settings."""
    return f"lamplight/config/v1/{post_id}"


# a city has few topics and each message names one
@lru_cache(maxsize=262_144)
def parse_device_topic(topic: str) -> tuple[str, str] | None:
    """(post_id, stream) of a device topic; None when the topic is none."""
    match = _DEVICE.fullmatch(topic)
    return (match[1], match[2]) if match else None
