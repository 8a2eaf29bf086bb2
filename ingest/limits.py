"""What a broker allows, as far as its CONNACK says so (MQTT 5, section 3.2.2.3).

Measured: Mosquitto 2.0.11 tells max_inflight_messages (as Receive Maximum), max_packet_size, max_keepalive and max_qos
when they are set, and never that it shortens sessions or queues; the embedded broker tells nothing.
"""

from typing import Any

SESSION_EXPIRY_S = 14 * 86_400  # as long as the production broker keeps a session without its client
RECEIVE_MAXIMUM = 65_535
KEEPALIVE_S = 30
LEAST_IN_FLIGHT = 1_000  # a commit of fewer messages costs throughput
LEAST_PACKET_BYTES = 65_536  # the production broker's


def refusal(properties: Any, is_shared: bool) -> str:
    """Why this broker cannot be used, "" when it can. `properties` are those of the CONNACK, None without any."""
    if getattr(properties, "MaximumQoS", 2) < 1:
        return "the broker allows QoS 0 only, which acknowledges nothing: change its max_qos"
    if not getattr(properties, "WildcardSubscriptionAvailable", 1):
        return "the broker allows no wildcard subscriptions: use another, LAMPLIGHT_MQTT_HOST"
    if is_shared and not getattr(properties, "SharedSubscriptionAvailable", 1):
        return "the broker has no shared subscriptions: for a single instance set LAMPLIGHT_INGEST_SUBSCRIPTION=plain"
    return ""


def capped(properties: Any) -> str:
    """What the broker allows less of than ingest is built for, with the setting's usual name; "" for nothing."""
    found = []
    in_flight = getattr(properties, "ReceiveMaximum", RECEIVE_MAXIMUM)
    if in_flight < LEAST_IN_FLIGHT:
        found.append(f"{in_flight} messages in flight (max_inflight_messages) cap the throughput")
    expiry_s = getattr(properties, "SessionExpiryInterval", SESSION_EXPIRY_S)
    if expiry_s < SESSION_EXPIRY_S:
        found.append(f"a session lasts {expiry_s} s without us (persistent_client_expiration), then its messages go")
    keepalive_s = getattr(properties, "ServerKeepAlive", KEEPALIVE_S)
    if keepalive_s < KEEPALIVE_S:
        found.append(f"a keep-alive of {keepalive_s} s (max_keepalive) ends connections while a slow disk works")
    packet_bytes = getattr(properties, "MaximumPacketSize", LEAST_PACKET_BYTES)
    if packet_bytes < LEAST_PACKET_BYTES:
        found.append(f"packets of {packet_bytes} bytes (max_packet_size) refuse devices' longer messages")
    return "; ".join(found)
