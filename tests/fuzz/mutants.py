"""Seeded mutants of valid messages: bytes, JSON tokens, members, names, times and topics, several at once."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from random import Random

from contracts import payloads
from contracts.times import US, isoformat, to_us
from contracts.topics import device_topic
from tests.pipelines.raw_log import BOOT, POSTS, START, messages

Mutant = tuple[str, bytes, int]  # topic, payload, received_time in microseconds
Mutate = Callable[[Random, bytes], bytes]

_VALUE = re.compile(rb'(?<=:)("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null)')
_MEMBER = re.compile(rb'"[a-z_0-9]+":(?:"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null)')
_KEYS = sorted(
    {
        name
        for kind in (payloads.Traffic, payloads.Lane, payloads.Weather, payloads.Air, payloads.Pedestrian,
                     payloads.Dumping, payloads.Birth, payloads.Heartbeat, payloads.Will, payloads.ClassCounts)
        for name in kind.__struct_fields__
    } | {"kind", "plate", "mac_address", "seq ", "Seq", "sequence", "", "__class__", "\\u0073eq"}
)  # fmt: skip
_TOKENS = (
    *(b"null", b"true", b"false", b'""', b'" "', b"[]", b"{}", b"[null]", b'{"a":1}', b"NaN", b"Infinity"),
    *(b"-Infinity", b"nan", b"None", b"'a'", b"0", b"-0", b"-0.0", b"1", b"-1", b"00", b"007", b"+1", b".5", b"5."),
    *(b"1e5", b"1E+308", b"1e309", b"-1e309", b"1e-400", b"1e999999999", b"4.9e-324", b"1.7976931348623157e308"),
    *(b"32767", b"32768", b"2147483647", b"2147483648", b"9007199254740992", b"9007199254740993"),
    *(b"9223372036854775807", b"9223372036854775808", b"18446744073709551615", b"18446744073709551616"),
    *(b"-9223372036854775808", b"-9223372036854775809", b"999999999999999", b"1000000000000000", b"1" + b"0" * 400),
    *(b"-999", b"-999.0", b"-999.00000000000001", b'"-999"', b'"////"', b'"///"', b'"/////"', b"-99.9", b"9999"),
    *(b'"\\ud800"', b'"\\udfff\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\\x41"', b'"\x00"', b'"\x1f"'),
    *(b'"\xed\xa0\x80"', b'"\xff"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b'"\xef\xbf\xbf"'),
    *(b'"KT1001"', b'"00000000000000A1"', b'"00000000000000a"', b'"0123456789abcdef0"', b'"ffffffffffffffff"'),
    *(b'"birth"', b'"will"', b'"heartbeat"', b'"N"', b'"NW"', b'"Fast Lane"', b'"traffic"', b'{"traffic":1}'),
    b'{"boot_id":"00000000000000a1","highest_seq":{"air":9007199254740992}}',
    b'[{"boot_id":"00000000000000a1","stream":"air","first_seq":9,"last_seq":3}]',
)  # fmt: skip
_TIMES = (
    *("1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"),
    *("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-23:59", "10000-01-01T00:00:00Z", "2026-02-29T00:00:00Z"),
    *("2024-02-29T00:00:00Z", "2026-11-21T08:00:60Z", "2026-11-21T24:00:00Z", "2026-11-21T08:00:00", "2026-11-21"),
    *("2026-11-21T08:00:00.0000005Z", "2026-11-21T08:00:00.9999999999Z", "2026-11-21T08:00:30,5Z", "08:00:00Z"),
    *("2026-11-21t08:00:00z", "2026-11-21 08:00:00Z", "2026-11-21T08:00:00+08:00", "2026-11-21T08:00:00+24:00"),
    *("2019-06-26T23:59:59.999999Z", "2019-06-27T00:00:00Z", "20261121T080000Z", "1795248000", "now", ""),
)  # fmt: skip
_OFFSETS_S = (
    0,
    30,
    59,
    60,
    60.000001,
    61,
    90,
    86_400,
    -30,
    -3600,
    -30 * 86_400,
    -30 * 86_400 - 0.000001,
    -90 * 86_400,
    -91 * 86_400,
)
_RECEIPTS_S = (0, 0, 0, 0, 31, -31, -61, -90, 30 * 86_400, 31 * 86_400, 91 * 86_400, 400 * 86_400, -7 * 365 * 86_400)
_LONGEST = 65_535  # bytes of a topic in MQTT


def seeds(seed: int) -> list[tuple[str, bytes, datetime]]:
    """Valid messages of every kind: topic, payload, receipt."""
    found = [(row.topic, row.payload, row.received) for row in messages(seed)]
    head = {"schema_version": 1, "boot_id": BOOT, "seq": 0, "first_seq": 0, "time": START}
    previous = payloads.PreviousBoot(boot_id="00000000000000a0", highest_seq={"air": 7, "status": 2**53})
    span = payloads.SeqRange(boot_id="00000000000000a0", stream="air", first_seq=3, last_seq=9)
    held = payloads.OldestHeld(boot_id="00000000000000a0", stream="weather", seq=12)
    states: list[payloads.Payload] = [
        payloads.Birth(**head, firmware="1.0", clock_offset_s=-0.5, previous=previous),  # type: ignore[arg-type]
        payloads.Heartbeat(**head, firmware="1.0", dropped_count=7, dropped=[span], oldest_held=[held]),  # type: ignore[arg-type]
        payloads.Will(schema_version=1, boot_id=BOOT, connection=2, gateway_id="GW0001"),
    ]
    for post in (*POSTS, "GW0001"):
        found += [(device_topic(post, "status"), payloads.encode(state), START) for state in states]
    return found


def _flip(random: Random, payload: bytes) -> bytes:
    changed = bytearray(payload)
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(random: Random, payload: bytes) -> bytes:
    return payload[: random.randrange(len(payload) + 1)]


def _behead(random: Random, payload: bytes) -> bytes:
    return payload[random.randrange(len(payload)) :]


def _excise(random: Random, payload: bytes) -> bytes:
    at = random.randrange(len(payload))
    return payload[:at] + payload[at + random.randint(1, 20) :]


def _repeat(random: Random, payload: bytes) -> bytes:
    at = random.randrange(len(payload))
    return payload[:at] + payload[at : at + random.randint(1, 60)] * random.choice((2, 2, 3, 50)) + payload[at:]


def _insert(random: Random, payload: bytes) -> bytes:
    at = random.randrange(len(payload) + 1)
    piece = random.choice((random.randbytes(random.randint(1, 8)), random.choice(_TOKENS), b" \t\r\n", b",", b"}{"))
    return payload[:at] + piece + payload[at:]


def _value(random: Random, payload: bytes) -> bytes:
    """Another token in a value's place: another type, a huge number, no number, a surrogate, a sentinel."""
    found = list(_VALUE.finditer(payload))
    if not found:
        return payload
    match = random.choice(found)
    token = random.choice(_TOKENS) if random.random() < 0.9 else str(random.uniform(-1e6, 1e6)).encode()
    return payload[: match.start()] + token + payload[match.end() :]


def _nest(random: Random, payload: bytes) -> bytes:
    depth = random.choice((2, 10, 200, 990, 1100, 5000))
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[", b"")))
    deep = opening * depth + b"1" + closing * depth
    found = list(_VALUE.finditer(payload))
    if not found or random.random() < 0.2:
        return deep
    match = random.choice(found)
    return payload[: match.start()] + deep + payload[match.end() :]


def _long(random: Random, payload: bytes) -> bytes:
    size = random.choice((63, 64, 65, 255, 4096, 100_000))
    text = random.choice((b"a", b"/", "海".encode(), b"\\n", b"\\u6d77", b"0", b"\xff")) * size
    if random.random() < 0.5:
        return payload[:-1] + b',"' + text + b'":1}'
    match = random.choice(list(_VALUE.finditer(payload)) or [re.match(b"", payload)])
    assert match is not None
    return payload[: match.start()] + b'"' + text + b'"' + payload[match.end() :]


def _twice(random: Random, payload: bytes) -> bytes:
    """A member a second time, at a place of its own, with its own value or another."""
    found = list(_MEMBER.finditer(payload))
    if not found:
        return payload
    member = random.choice(found)[0]
    if random.random() < 0.5:
        member = member.partition(b":")[0] + b":" + random.choice(_TOKENS)
    before = random.choice(found).start()
    return payload[:before] + member + b"," + payload[before:]


def _swap(random: Random, payload: bytes) -> bytes:
    """Two members change places."""
    found = list(_MEMBER.finditer(payload))
    if len(found) < 2:
        return payload
    one, other = sorted(random.sample(found, 2), key=lambda match: match.start())
    middle = payload[one.end() : other.start()]
    return payload[: one.start()] + other[0] + middle + one[0] + payload[other.end() :]


def _key(random: Random, payload: bytes) -> bytes:
    """Another name for a field, or a field more."""
    name = random.choice(_KEYS).encode()
    found = list(_MEMBER.finditer(payload))
    if not found or random.random() < 0.5:
        return payload[:-1] + b',"' + name + b'":' + random.choice(_TOKENS) + b"}"
    match = random.choice(found)
    return payload[: match.start()] + b'"' + name + b'"' + match[0][match[0].index(b":") :] + payload[match.end() :]


def _drop(random: Random, payload: bytes) -> bytes:
    found = list(_MEMBER.finditer(payload))
    if not found:
        return payload
    match = random.choice(found)
    return (payload[: match.start()] + payload[match.end() :]).replace(b",,", b",").replace(b"{,", b"{")


def _time(random: Random, payload: bytes) -> bytes:
    if random.random() < 0.5:
        text = random.choice(_TIMES)
    else:
        moment = START + timedelta(seconds=random.choice(_OFFSETS_S) + random.choice((0, 0, 30, 60, 300)))
        text = isoformat(moment)
    return re.sub(rb'"time":"[^"]*"', b'"time":"' + text.encode() + b'"', payload, count=1)


def _name(random: Random, payload: bytes) -> bytes:
    """Other numbers in the message's name."""
    field = random.choice((b"seq", b"first_seq", b"schema_version"))
    number = random.choice((0, 1, 2, 3, 7, 10**14, 10**15 - 1, 10**15, 2**53, 2**53 + 1, 32767, 32768, 99999, 100000))
    return re.sub(rb'"' + field + rb'":\d+', b'"' + field + b'":' + str(number).encode(), payload, count=1)


def _recode(random: Random, payload: bytes) -> bytes:
    """Other encodings and white space."""
    return random.choice(
        (
            lambda: b"\xef\xbb\xbf" + payload,
            lambda: payload.decode("latin-1").encode("utf-16"),
            lambda: payload.decode("latin-1").encode("utf-32-le"),
            lambda: payload.replace(b",", b" ,\n\t").replace(b":", b" : "),
            lambda: b" " * random.randint(1, 5) + payload + b"\n",
            lambda: payload + payload,
            lambda: payload + b"\0",
            lambda: b"[" + payload + b"]",
            payload.upper,
            lambda: payload.replace(b"schema_version", b"schema\\u005fversion"),
        )
    )()


_BYTES: tuple[Mutate, ...] = (
    *(_flip, _cut, _behead, _excise, _repeat, _insert, _value, _value, _value, _nest, _long, _twice, _swap, _key),
    *(_drop, _time, _time, _name, _recode),
)


def _topic(random: Random, topic: str) -> str:
    """A topic that MQTT may bring or not: another post or stream, more levels, wildcards, no text at all."""
    post = random.choice(
        (*POSTS, "GW0001", "ZZ9999", "KT1", "KT123456", "kt1001", "ＫＴ１００１", "AID01101", "KT１００１")
    )
    stream = random.choice(("traffic", "air", "weather", "status", "pedestrian", "dumping", "statuses", "", "+", "#"))
    place = random.randrange(len(topic))
    return random.choice(
        (
            lambda: f"lamplight/v1/{post}/{stream}",
            lambda: f"lamplight/v1/{post}/{stream}",
            lambda: f"lamplight/v2/{post}/{stream}",
            lambda: f"lamplight/v1/{post}/{stream}/{stream}",
            lambda: f"lamplight/v1/{post}",
            lambda: f"/{topic}",
            lambda: f"{topic}/",
            lambda: f"{topic}\n",
            lambda: topic[:place] + random.choice("\0\n\u00a0\u202e海é😀/ +#\x7f\uffff\ufeff") + topic[place:],
            lambda: topic[:place],
            lambda: "lamplight/v1/" + random.choice("a/海") * random.choice((1, 100, _LONGEST // 3 - 20)),
            lambda: "",
            lambda: f"$SYS/{topic}",
            lambda: f"lamplight/receipt/v1/{post}",
        )
    )()


def mutants(seed: int, count: int) -> Iterator[Mutant]:
    """`count` mutants, the same for a seed; receipts differ by a microsecond at least among 100,000 in a row."""
    random = Random(seed)
    originals = seeds(seed)
    for number in range(count):
        topic, payload, received = random.choice(originals)
        for _ in range(random.choice((0, 1, 1, 1, 1, 2, 3))):
            payload = random.choice(_BYTES)(random, payload) or b"{}"
        if random.random() < 0.02:
            other = random.choice(originals)[1]  # spliced: the head of one, the tail of another
            payload = payload[: random.randrange(len(payload) + 1)] + other[random.randrange(len(other)) :]
        if random.random() < 0.005:
            payload = b""
        if random.random() < 0.2:
            topic = _topic(random, topic)
        # whole seconds and a microsecond each: no two of a hundred thousand have the same receipt
        received_us = to_us(received) // US * US + round(random.choice(_RECEIPTS_S)) * US + number % 100_000
        yield topic, payload, received_us
