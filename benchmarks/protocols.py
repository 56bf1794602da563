"""
What servers that do not speak in lines are told, and what they answer: given to the load generator as files.

The same 63 bytes of content everywhere, which with a newline are the line of 64 that others are sent. No I/O here.
"""

from __future__ import annotations

PAYLOAD = b"x" * 63

# RESP: an item for a list is to Redis what one client's line is to `collect`.
RPUSH = b"*3\r\n$5\r\nRPUSH\r\n$3\r\nlog\r\n$%d\r\n%s\r\n" % (len(PAYLOAD), PAYLOAD)

# NATS. Two seconds or a little more after a client has come the server pings it once, to learn how far away it is, and
# then for minutes no more. So that this is not in the midst of deliveries, it is part of the beginning.
NATS_CONNECT = b'CONNECT {"verbose":false,"pedantic":false}\r\n'
NATS_SUBSCRIBE = NATS_CONNECT + b"SUB room 1\r\nPING\r\n"
NATS_PUBLISHER = NATS_CONNECT + b"PING\r\n"
NATS_READY = b"PONG\r\nPING\r\n"
NATS_PUBLISH = b"PUB room %d\r\n%s\r\n" % (len(PAYLOAD), PAYLOAD)
NATS_DELIVERY = b"MSG room 1 %d\r\n%s\r\n" % (len(PAYLOAD), PAYLOAD)


def _mqtt(kind: int, *fields: bytes) -> bytes:
    """A control packet of MQTT 3.1.1, of less than 128 bytes, whose length is one byte for that reason."""
    body = b"".join(fields)
    return bytes([kind, len(body)]) + body


def _text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


# Protocol level 4, a clean session, hence no name of our own; a keep-alive of 0 is none.
MQTT_CONNECT = _mqtt(0x10, _text(b"MQTT"), b"\x04\x02", b"\0\0", _text(b""))
MQTT_CONNECTED = _mqtt(0x20, b"\0\0")
MQTT_SUBSCRIBE = MQTT_CONNECT + _mqtt(0x82, b"\0\x01", _text(b"room"), b"\0")
MQTT_SUBSCRIBED = _mqtt(0x90, b"\0\x01", b"\0")
#: At quality of service 0 a packet arrives as it was sent.
MQTT_PUBLISH = _mqtt(0x30, _text(b"room"), PAYLOAD)

# Without a listener named here it is at loopback only. Nothing is dropped for a client who is a little behind.
MOSQUITTO = b"""\
allow_anonymous true
persistence false
max_queued_messages 0
max_inflight_messages 0
set_tcp_nodelay true
log_dest stderr
log_type error
"""

#: By name.
FILES = {
    "rpush.resp": RPUSH,
    "nats.subscribe": NATS_SUBSCRIBE,
    "nats.publisher": NATS_PUBLISHER,
    "nats.ready": NATS_READY,
    "nats.publish": NATS_PUBLISH,
    "nats.delivery": NATS_DELIVERY,
    "mqtt.subscribe": MQTT_SUBSCRIBE,
    "mqtt.subscribed": MQTT_SUBSCRIBED,
    "mqtt.publisher": MQTT_CONNECT,
    "mqtt.connected": MQTT_CONNECTED,
    "mqtt.publish": MQTT_PUBLISH,
    "mosquitto.conf": MOSQUITTO,
}
