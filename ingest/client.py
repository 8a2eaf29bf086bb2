"""paho's client with the socket read in large pieces and acknowledgements written as one piece.

paho reads a packet with three system calls and writes each PUBACK with one; in pieces, one process takes about half as
many messages again. Both ends hold at paho's own seams (`_sock_recv`, `_packet_queue`); the version is locked.
"""

from collections.abc import Sequence
from struct import pack

import paho.mqtt.client as mqtt

PIECE_BYTES = 262_144
_PUBACK = 0x40


class PieceClient(mqtt.Client):
    """To be driven by a loop of one's own: select, `loop_read`, `loop_write`, `loop_misc`."""

    _piece = memoryview(b"")
    _at = 0

    @property
    def is_buffered(self) -> bool:
        """Bytes have been read that no packet has taken yet, so that `select` does not tell of them."""
        return self._at < len(self._piece)

    def ack_all(self, mids: Sequence[int]) -> None:
        """Queue a PUBACK (reason: success) for each packet id, in order, as one write."""
        if mids:
            packets = b"".join([pack("!BBH", _PUBACK, 2, mid) for mid in mids])
            self._packet_queue(_PUBACK, packets, 0, 1)

    def _sock_recv(self, bufsize: int) -> bytes:
        piece, at = self._piece, self._at
        end = at + bufsize
        if end <= len(piece):
            self._at = end
            return bytes(piece[at:end])
        # what is left of the piece is given first; paho asks again for the rest of the packet
        if at < len(piece):
            self._at = len(piece)
            return bytes(piece[at:])
        piece = memoryview(super()._sock_recv(PIECE_BYTES))
        end = min(bufsize, len(piece))
        self._piece, self._at = piece, end
        return bytes(piece[:end])

    def _sock_close(self) -> None:
        # the bytes of one connection are never parsed as another's
        self._piece, self._at = memoryview(b""), 0
        super()._sock_close()
