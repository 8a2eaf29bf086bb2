"""The embedded broker of the demo and of quick tests: iotcore (rumqttd) in a child process.

It keeps sessions and queues in memory only and holds at most 100 messages in flight to one subscriber, whatever it is
told. A client that comes with the id of one that has only just gone, on the other listener, ends its own listener
(rumqttd 0.20.0). Production runs Mosquitto.
"""

import tempfile
from pathlib import Path

from iotcore import Broker

_TOML = """\
id = 0

[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
"""
_LISTENER = """
[{version}.1]
name = "{version}"
listen = "{host}:{port}"
next_connection_delay_ms = 1
    [{version}.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 262144
    max_inflight_count = 1000
    dynamic_filters = true
"""


def configuration(host: str, port: int, mqtt311_port: int) -> str:
    """rumqttd's TOML: MQTT 5 on `port`, MQTT 3.1.1 on `mqtt311_port`; both without passwords, so for loopback only."""
    return (
        _TOML
        + _LISTENER.format(version="v5", host=host, port=port)
        + _LISTENER.format(version="v4", host=host, port=mqtt311_port)
    )


def start(host: str, port: int, mqtt311_port: int) -> Broker:
    """A broker that accepts connections; its child process ends with this one.

    Raises OSError when a port is busy and RuntimeError when the broker does not come up.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "iotcore.toml"
        path.write_text(configuration(host, port, mqtt311_port))
        return Broker(config_path=str(path)).start()
