"""The production broker: who may say and hear what. What must not arrive is followed by something that must."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from contracts.credentials import Credentials
from contracts.receipts import decode_receipt
from contracts.topics import config_topic, device_topic, receipt_topic
from tests.broker import need_mosquitto
from tests.ingest import posts
from tests.ingest.locked import NOT_AUTHORIZED, SUCCESS, Client, Locked
from tests.ingest.processes import Running, payloads, until
from tests.sensors_sim.listener import Simulator

EVERYTHING = ("#",)
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    """KT1000, KT1001 and the services have passwords; CW1000, CW1001 and GW0001 (CA1000 to CA1024) certificates.
    `tester`, who may do anything, is the test's own."""
    need_mosquitto()
    broker = Locked(tmp_path_factory.mktemp("locked"))
    broker.command("provision", "KT1000", "KT1001", "ingest-a", "ingest-test", "receipts")
    broker.command("provision", "--certificate", "CW1000", "CW1001", "--gateway", "GW0001")
    broker.add_tester()
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def ingest(broker: Locked) -> Iterator[Client]:
    """Asks for everything; its last line of defence is tested as the devices' is."""
    with broker.client("ingest-test", topics=EVERYTHING) as client:
        assert client.code == 0
        yield client


@pytest.fixture
def tester(broker: Locked) -> Iterator[Client]:
    with broker.client("tester", topics=EVERYTHING) as client:
        assert client.code == 0
        yield client


def say(speaker: Client, topic: str, listener: Client) -> None:
    """Say something, and return when the listener has heard it."""
    payload = b"marker %d" % next(_NUMBERS)
    assert speaker.publish(topic, payload) in SUCCESS
    until(lambda: (topic, payload) in listener.got)


def heard(listener: Client) -> set[str]:
    return {topic for topic, _ in listener.got}


@pytest.mark.parametrize("name", ["KT1000", "CW1000"])
def test_a_device_writes_under_its_own_name_only(broker: Locked, tester: Client, name: str) -> None:
    own = device_topic(name, "weather")
    with broker.client(name) as device:
        for topic in (
            device_topic("KT1001", "weather"),
            device_topic("CW1001", "weather"),
            device_topic(f"{name}0", "weather"),
            f"lamplight/v2/{name}/weather",
            receipt_topic(name),
            receipt_topic("KT1001"),
            config_topic(name),
            f"$share/ingest/{own}",
            "anything",
        ):
            assert device.publish(topic, b"forbidden") == NOT_AUTHORIZED, topic
        say(device, own, tester)
    assert heard(tester) == {own}


def test_an_old_client_is_not_told_and_is_not_heard(broker: Locked, tester: Client) -> None:
    """MQTT 3.1.1 has no word for a refusal: its PUBACK says nothing, and the message goes nowhere."""
    with broker.client("KT1000", version=MQTTProtocolVersion.MQTTv311) as device:
        device.publish(device_topic("KT1001", "weather"), b"forbidden")
        say(device, device_topic("KT1000", "weather"), tester)
    assert heard(tester) == {device_topic("KT1000", "weather")}


@pytest.mark.parametrize("name", ["KT1000", "CW1000"])
def test_a_device_hears_its_own_receipts_and_settings_only(broker: Locked, tester: Client, name: str) -> None:
    with broker.client(name, topics=(*EVERYTHING, receipt_topic("KT1001"))) as device:
        for topic in (
            receipt_topic("KT1001"),
            config_topic("KT1001"),
            receipt_topic(f"{name}0"),
            device_topic("KT1001", "weather"),
            device_topic(name, "weather"),
        ):
            say(tester, topic, tester)
        for topic in (receipt_topic(name), config_topic(name)):
            say(tester, topic, device)
        assert heard(device) == {receipt_topic(name), config_topic(name)}


def test_a_gateway_is_exactly_its_posts(broker: Locked, tester: Client) -> None:
    with broker.client("GW0001", topics=EVERYTHING) as gateway:
        for post_id in ("CA1025", "CA1030", "KT1000"):
            assert gateway.publish(device_topic(post_id, "air"), b"forbidden") == NOT_AUTHORIZED
            say(tester, receipt_topic(post_id), tester)
        for post_id in ("CA1000", "CA1024", "GW0001"):
            assert gateway.publish(receipt_topic(post_id), b"forbidden") == NOT_AUTHORIZED
            say(gateway, device_topic(post_id, "status"), tester)
            say(tester, receipt_topic(post_id), gateway)
            say(tester, config_topic(post_id), gateway)
        assert len(heard(gateway)) == 6


def test_ingest_hears_what_devices_send_and_says_nothing(broker: Locked, ingest: Client, tester: Client) -> None:
    for topic in (
        device_topic("KT1000", "air"),
        device_topic("ingest-test", "air"),
        receipt_topic("KT1000"),
        receipt_topic("ingest-test"),
        config_topic("KT1000"),
        "anything",
    ):
        assert ingest.publish(topic, b"forbidden") == NOT_AUTHORIZED, topic
        say(tester, topic, tester)
    say(tester, device_topic("CW1000", "air"), ingest)
    assert heard(ingest) == {device_topic("KT1000", "air"), device_topic("CW1000", "air")}


def test_ingest_may_share_its_subscription(broker: Locked, tester: Client) -> None:
    with broker.client("ingest-test", topics=("$share/ingest/lamplight/v1/#",)) as ingest:
        say(tester, device_topic("KT1000", "air"), ingest)
        assert heard(ingest) == {device_topic("KT1000", "air")}


def test_receipts_writes_receipts_and_hears_nothing(broker: Locked, tester: Client) -> None:
    with broker.client("receipts", topics=EVERYTHING) as receipts, broker.client("KT1000", topics=EVERYTHING) as post:
        for topic in (
            device_topic("KT1000", "air"),
            device_topic("receipts", "air"),
            config_topic("KT1000"),
            f"{receipt_topic('KT1000')}/more",
        ):
            assert receipts.publish(topic, b"forbidden") == NOT_AUTHORIZED, topic
            say(tester, topic, tester)
        say(tester, receipt_topic("receipts"), tester)
        say(receipts, receipt_topic("KT1000"), post)
        assert receipts.got == []


def refused(broker: Locked, **changes: str | None) -> int | None:
    """What the broker answers to KT1000's credentials with something changed."""
    with Client(broker, dataclasses.replace(broker.credentials("KT1000"), **changes)) as client:
        assert not client.is_up
        return client.code


def test_nobody_without_the_right_credential_comes_in(broker: Locked, tmp_path: Path) -> None:
    credentials = broker.folder / "credentials"
    other = str(credentials / "KT1001.password")
    assert refused(broker, username=None, password_file=None) == NOT_AUTHORIZED
    assert refused(broker, password_file=other) == NOT_AUTHORIZED
    assert refused(broker, username="KT1009") == NOT_AUTHORIZED
    # a certificate has no password, even where passwords are asked for, and the other way round
    assert refused(broker, username="CW1000", password_file=other) == NOT_AUTHORIZED
    # no certificate, and a certificate that another authority has signed
    with Client(broker, Credentials(ca=broker.credentials("CW1000").ca), port=broker.certificate_port) as client:
        assert client.code is None
    strange = Locked(tmp_path)
    strange.command("provision", "--certificate", "CW1000")
    forged = dataclasses.replace(strange.credentials("CW1000"), ca=broker.credentials("CW1000").ca)
    with Client(broker, forged) as client:
        assert client.code is None
    # and a device does not tell its password to a broker that another authority has signed
    assert refused(broker, ca=strange.credentials("CW1000").ca) is None


def test_a_client_id_takes_nobodys_session(broker: Locked, ingest: Client) -> None:
    """Two clients with one id end each other's session; here the name is the id, whatever a client calls itself."""
    with broker.client("KT1000", client_id="ingest-test") as device:
        say(device, device_topic("KT1000", "air"), ingest)
    assert ingest.is_up


@pytest.mark.parametrize(("name", "option"), [("TS1000", "--password"), ("TS1001", "--certificate")])
def test_a_revoked_device_stays_out(broker: Locked, tester: Client, name: str, option: str) -> None:
    broker.command("provision", name, option)
    broker.reload()
    credentials = broker.credentials(name)
    kept = tmp_copy(credentials, broker.root)
    with Client(broker, kept) as device, broker.client("CW1000") as bystander:
        say(device, device_topic(name, "air"), tester)
        broker.command("revoke", name)
        assert not any((broker.folder / "credentials").glob(f"{name}.*"))
        broker.reload()
        if option == "--password":
            until(lambda: not device.is_up)
        else:
            assert device.publish(device_topic(name, "air"), b"forbidden") == NOT_AUTHORIZED
        assert bystander.is_up
    with Client(broker, kept) as device:
        assert not device.is_up
    # provisioned again: the new credential is good, the old one is not
    broker.command("provision", name, option)
    broker.reload()
    again = tmp_copy(broker.credentials(name), broker.root / "again")
    with Client(broker, again) as device:
        say(device, device_topic(name, "air"), tester)
    with Client(broker, kept) as device:
        assert not device.is_up
    # within the same second: a broker that has read one list of certificates heeds the next
    broker.command("revoke", name)
    broker.reload()
    with Client(broker, again) as device:
        assert not device.is_up


def tmp_copy(credentials: Credentials, folder: Path) -> Credentials:
    """The same from copies of its files, as the device has them."""
    folder.mkdir(exist_ok=True)

    def copied(path: str | None) -> str | None:
        if path is None:
            return None
        copy = folder / Path(path).name
        copy.write_bytes(Path(path).read_bytes())
        return str(copy)

    return dataclasses.replace(
        credentials,
        password_file=copied(credentials.password_file),
        certificate=copied(credentials.certificate),
        key=copied(credentials.key),
    )


def variables(broker: Locked, name: str, port: int) -> dict[str, str]:
    credentials = broker.credentials(name)
    given = {
        "LAMPLIGHT_MQTT_PORT": str(port),
        "LAMPLIGHT_MQTT_CA": credentials.ca,
        "LAMPLIGHT_MQTT_USERNAME": credentials.username,
        "LAMPLIGHT_MQTT_PASSWORD_FILE": credentials.password_file,
        "LAMPLIGHT_MQTT_CERTIFICATE": credentials.certificate,
        "LAMPLIGHT_MQTT_KEY": credentials.key,
    }
    return {variable: value for variable, value in given.items() if value is not None}


@pytest.mark.parametrize("name", ["ingest-a", "ingest-b"])
def test_ingest_lands_what_a_locked_broker_has(broker: Locked, tmp_path: Path, name: str) -> None:
    """With a password and with a certificate; each message is more than a TLS record holds."""
    is_certificate = name == "ingest-b"
    if is_certificate:
        broker.command("provision", name, "--certificate")
        broker.reload()
    port = broker.certificate_port if is_certificate else broker.password_port
    sent = [b"%d" % number + b" " * 40_000 for number in range(20)]
    with Running(tmp_path, port, variables=variables(broker, name, port)) as running:
        running.until_said("landing from")
        with broker.client("CW1000") as device:
            for payload in sent:
                assert device.publish(device_topic("CW1000", "air"), payload) == 0
            assert device.publish(device_topic("KT1000", "air"), b"forbidden") == NOT_AUTHORIZED
        until(lambda: len(payloads(tmp_path)) >= len(sent))
    assert payloads(tmp_path) == sent
    # until it is retired, its session gets its share
    with Running(tmp_path, port, "retire", variables=variables(broker, name, port)) as leaving:
        assert leaving.ended() == 0
    assert not any(
        Path(broker.credentials("ingest-a").password_file or "").read_text().strip() in line for line in running.lines
    )


def test_ingest_that_is_refused_says_what_to_change(broker: Locked, tmp_path: Path) -> None:
    wrong = variables(broker, "ingest-a", broker.password_port) | {
        "LAMPLIGHT_MQTT_PASSWORD_FILE": str(broker.folder / "credentials" / "KT1000.password")
    }
    with Running(tmp_path, broker.password_port, variables=wrong) as running:
        assert running.ended() == 2
    assert len(running.lines) == 1
    assert "Not authorized" in running.lines[0]
    assert "LAMPLIGHT_MQTT_PASSWORD_FILE" in running.lines[0]


def test_receipts_over_a_locked_broker(broker: Locked, tmp_path: Path) -> None:
    port = broker.password_port
    posts.land(tmp_path, [posts.message(0, post_id="KT1000"), posts.message(3, 3, post_id="KT1001")])
    with broker.client("KT1000", topics=EVERYTHING) as post:
        with Running(tmp_path, port, "receipts", variables=variables(broker, "receipts", port)) as running:
            until(lambda: bool(post.got))
        assert not any("refuse" in line for line in running.lines)
        ((topic, payload),) = post.got
        told = decode_receipt(payload)
        assert told is not None
        assert (topic, told.boots) == (receipt_topic("KT1000"), {posts.BOOT: {"air": 0}})
        # whoever may not write receipts is told so by the broker, and tells it
        with Running(tmp_path, port, "receipts", variables=variables(broker, "KT1001", port)) as running:
            posts.land(tmp_path, [posts.message(1, post_id="KT1000")])
            running.until_said("the broker refuses lamplight/receipt/v1/KT1000 (Not authorized)")
        assert len(post.got) == 1


def test_simulated_gateways_publish_to_a_locked_broker(
    broker: Locked, ingest: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`{name}` in the settings is each connection's own: eight posts of four gateways."""
    broker.command("provision", "--certificate", *(f"--gateway=GW000{number}" for number in (1, 3, 5, 7)))
    broker.reload()
    for variable, value in variables(broker, "GW0001", broker.certificate_port).items():
        monkeypatch.setenv(variable, value.replace("GW0001", "{name}"))
    simulator = Simulator(broker.root, broker.certificate_port)
    code, _, err = simulator.run("publish", "--posts", "8", "--rate", "50", "--seconds", "1")
    assert code == 0, err
    assert simulator.progress()["refused"] == 0
    posts = {f"{area}{number}" for area in ("CA", "CW", "KT", "TS") for number in (1000, 1001)}
    until(lambda: len(ingest.got) >= simulator.progress()["published"])
    assert {topic.split("/")[2] for topic, _ in ingest.got} == posts
    # a key that does not fit
    monkeypatch.setenv("LAMPLIGHT_MQTT_KEY", broker.credentials("GW0003").key or "")
    code, _, err = Simulator(broker.root, broker.certificate_port).run("publish", "--posts", "8", "--seconds", "1")
    assert code == 2
    assert err.count("\n") == 1
    assert "LAMPLIGHT_MQTT_KEY" in err
