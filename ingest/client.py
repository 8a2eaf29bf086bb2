"""paho's client with the socket read in large pieces, acknowledgements written as one, and PUBLISH taken apart plainly.

paho reads a packet with three system calls, writes each PUBACK with one, and spends half of its time on property
objects that nobody asks for. All three hold at paho's own seams (`_sock_recv`, `_packet_queue`, `_handle_publish`);
the version is locked and tests hold the seams.
"""

from collections.abc import Callable, Sequence
from struct import pack

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode

PIECE_BYTES = 262_144
_PUBACK = 0x40


class PieceClient(mqtt.Client):
    """To be driven by a loop of one's own: select, `loop_read`, `loop_write`, `loop_misc`.

    Each message of QoS 0 or 1 goes to `on_arrival(topic, payload, packet id, qos, is_retained)`, in place of paho's
    `on_message`; an exception there ends the loop that reads.
    """

    on_arrival: Callable[[bytes, bytes, int, int, bool], None]
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

    def _handle_publish(self) -> MQTTErrorCode:
        """A PUBLISH of MQTT 5 (section 3.3 of the standard); its properties are passed over."""
        header, packet = self._in_packet["command"], self._in_packet["packet"]
        qos = header >> 1 & 3
        after_topic = 2 + int.from_bytes(packet[:2], "big")
        at = after_topic + 2 if qos else after_topic
        length = shift = 0
        while True:
            if at >= len(packet) or shift > 21 or qos > 1:
                return MQTTErrorCode.MQTT_ERR_PROTOCOL
            byte = packet[at]
            length |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                break
        at += length
        if at > len(packet):
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        mid = int.from_bytes(packet[after_topic : after_topic + 2], "big") if qos else 0
        self.on_arrival(bytes(packet[2:after_topic]), bytes(packet[at:]), mid, qos, bool(header & 1))
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _sock_close(self) -> None:
        # the bytes of one connection are never parsed as another's
        self._piece, self._at = memoryview(b""), 0
        super()._sock_close()
