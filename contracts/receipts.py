"""What the platform tells a post: which of its messages are durable, so that it may forget them.

Published retained at QoS 1, at most once a second and post, whenever something of the post has landed. `boots` holds
per boot and stream the seq up to which everything from first_seq on is durable, a message that ended in quarantine
included; a boot or stream that is absent has no news. A device keeps each message until a receipt covers it, and
sends it again, the same bytes, when the receipts stay behind.
"""

from typing import Annotated

import msgspec

from contracts.payloads import SCHEMA_VERSION, BootId, Seq, StreamName, Time, Version


class Receipt(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`time` is when it was made."""

    schema_version: Version = SCHEMA_VERSION
    time: Time
    boots: Annotated[dict[BootId, dict[StreamName, Seq]], msgspec.Meta(max_length=64)]


_DECODER = msgspec.json.Decoder(Receipt)


def encode_receipt(receipt: Receipt) -> bytes:
    """The JSON bytes of a receipt."""
    return msgspec.json.encode(receipt)


def decode_receipt(payload: bytes) -> Receipt | None:
    """A receipt, or None for bytes that are none: a device goes on as if it had not heard them."""
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
