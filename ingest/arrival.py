"""A message as it arrived, before anyone has looked into it."""

from typing import NamedTuple


class Arrival(NamedTuple):
    """`generation` and `mid` say which acknowledgement it waits for: the connection that delivered it and the packet
    id there. `qos` 0 waits for none. `received_us` is UTC microseconds."""

    topic: str
    payload: bytes
    received_us: int
    is_retained: bool = False
    generation: int = 0
    mid: int = 0
    qos: int = 0
