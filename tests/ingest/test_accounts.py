"""`provision` and `revoke`: what lies in the folder, that twice is once, and that a wrong word changes nothing."""

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from contracts.credentials import Credentials
from contracts.layout import Layout, try_lock
from contracts.registry import Lamppost, RegistryFile, load_registry, save_registry
from contracts.settings import SettingError
from ingest import rules
from ingest.__main__ import main
from sensors_sim import fleet
from tests.broker import need_mosquitto

HERE = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a registry of eight posts: CA1000, CA1001, CW1000, ..., KT1001."""
    save_registry(Layout(tmp_path).registry, fleet.build(8, seed=1, detectors=False))
    return tmp_path


def command(root: Path, *arguments: str) -> None:
    assert main([*arguments, "--data", str(root)]) == 0


def content(root: Path) -> dict[str, bytes]:
    folder = Layout(root).broker
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_secret_is_for_its_owner_only(root: Path) -> None:
    need_mosquitto()
    before = os.umask(0)
    try:
        command(root, "provision", "KT1000", "receipts")
        command(root, "provision", "CA1000", "--certificate")
    finally:
        os.umask(before)
    folder = Layout(root).broker
    public = {"acl", "mosquitto.conf", "tls/ca.crt", "tls/ca.crl", "tls/server.crt", "lock"}
    for name in content(root).keys() - public:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    for name in public - {"lock"}:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o644, name
    for inner in ("", "authority", "credentials", "data"):
        assert stat.S_IMODE((folder / inner).stat().st_mode) == 0o700, inner


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_root_changes_the_broker_can_still_read(root: Path) -> None:
    need_mosquitto()
    command(root, "provision", "KT1000", "KT1001")
    command(root, "provision", "--certificate", "CA1000")
    folder = Layout(root).broker
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 54321, 54321)
    command(root, "revoke", "KT1000", "CA1000")
    command(root, "provision", "KT1000")
    assert {(path.stat().st_uid, path.stat().st_gid) for path in folder.rglob("*")} == {(54321, 54321)}


def test_secrets_are_not_said(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    need_mosquitto()
    command(root, "provision", "KT1000")
    password = (Layout(root).broker / "credentials" / "KT1000.password").read_text().strip()
    assert len(password) >= 40
    assert password not in "".join(capfd.readouterr())
    assert password.encode() not in b"".join(
        text for name, text in content(root).items() if name != "credentials/KT1000.password"
    )
    given = {"LAMPLIGHT_MQTT_CA": "ca", "LAMPLIGHT_MQTT_USERNAME": "KT1000", "LAMPLIGHT_MQTT_PASSWORD_FILE": "secret"}
    assert password not in repr(Credentials.read(given))


def test_twice_is_once(root: Path) -> None:
    need_mosquitto()
    command(root, "provision", "KT1000", "KT1000", "ingest-a")
    command(root, "provision", "CA1000", "--certificate", "--gateway", "GW0001")
    once = content(root)
    command(root, "provision", "KT1000", "ingest-a")
    command(root, "provision", "CA1000", "--certificate", "--gateway", "GW0001")
    assert content(root) == once
    command(root, "revoke", "KT1000", "CA1000", "TS1000")
    revoked = content(root)
    assert once.keys() - revoked.keys() == {
        "credentials/KT1000.password",
        "credentials/CA1000.crt",
        "credentials/CA1000.key",
        "authority/CA1000.crt",
    }
    assert [line.partition(b":")[0] for line in revoked["passwords"].splitlines()] == [b"ingest-a"]
    assert len(x509.load_pem_x509_crl(revoked["tls/ca.crl"])) == 1
    command(root, "revoke", "KT1000", "CA1000", "TS1000")
    assert content(root) == revoked


def test_each_list_of_revoked_certificates_is_later_than_the_last(root: Path) -> None:
    """Of two lists of one second OpenSSL heeds the one that it read first, and a reloaded broker has read both."""
    command(root, "provision", "CA1000", "CA1001", "CW1000", "--certificate")
    made = [x509.load_pem_x509_crl(content(root)["tls/ca.crl"])]
    for name in ("CA1000", "CA1001", "CW1000"):
        command(root, "revoke", name)
        made.append(x509.load_pem_x509_crl(content(root)["tls/ca.crl"]))
    moments = [each.last_update_utc for each in made]
    assert moments == sorted(set(moments))
    assert moments[-1] < datetime.now(UTC)
    assert [len(each) for each in made] == [0, 1, 2, 3]


def test_a_certificate_says_who_and_for_what(root: Path) -> None:
    command(root, "provision", "CA1000", "--certificate", "--mqtt-host", "broker.example")
    folder = Layout(root).broker
    device = x509.load_pem_x509_certificate((folder / "credentials" / "CA1000.crt").read_bytes())
    server = x509.load_pem_x509_certificate((folder / "tls" / "server.crt").read_bytes())
    authority = x509.load_pem_x509_certificate((folder / "tls" / "ca.crt").read_bytes())
    assert device.subject.rfc4514_string() == "CN=CA1000"
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example", "localhost"]
    for one, purpose in ((device, "clientAuth"), (server, "serverAuth")):
        one.verify_directly_issued_by(authority)
        uses = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert [use._name for use in uses] == [purpose]
        assert not one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_gateways_posts_follow_the_registry(root: Path) -> None:
    command(root, "provision", "--certificate", "--gateway", "GW0001")
    acl = Layout(root).broker / "acl"

    def posts() -> list[str]:
        lines = rules.parse(acl.read_text())["GW0001"].splitlines()
        return [line.split("/")[2] for line in lines if line.startswith("topic write")]

    assert posts() == ["CA1000", "CA1001"]
    path = Layout(root).registry
    file = load_registry(path).file
    kept: tuple[Lamppost, ...] = tuple(post for post in file.lampposts if post.post_id != "CA1001")
    save_registry(path, RegistryFile(version=2, lampposts=kept))
    command(root, "provision", "--certificate", "ingest-a")
    assert posts() == ["CA1000"]
    # a registry that is gone keeps nobody from being shut out
    path.unlink()
    command(root, "revoke", "GW0001")
    assert rules.parse(acl.read_text())["GW0001"].splitlines()[1:] == ["topic deny #"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("provision", "nobody to provision"),
        ("provision KT1000 KT9999", "'KT9999' is no post"),
        ("provision KT1000 #", "'#' is no post"),
        ("provision KT1000 ../KT1001", "'../KT1001' is no post"),
        ("provision ingest", "'ingest' is no post"),
        ("provision GW0001", "--gateway GW0001"),
        ("provision KT1000 --gateway KT1001", "'KT1001' is no gateway_id"),
        ("provision CA1000 --password", "CA1000 has a certificate"),
        ("provision KT1000 --password --certificate", "not allowed with"),
        ("revoke", "required"),
        ("revoke CA1000 ../KT1001", "'../KT1001' is no post"),
        ("provision KT1000 --folder /dev/null", "--folder"),
    ],
)
def test_a_wrong_word_changes_nothing(root: Path, arguments: str, words: str) -> None:
    command(root, "provision", "CA1000", "--certificate")
    before = content(root)
    with pytest.raises(SettingError) as caught:
        main([*arguments.split(), "--data", str(root)])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert content(root) == before


def test_a_wrong_word_is_one_line_and_exit_code_2(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "provision", "KT9999", "--data", str(root)],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not Layout(root).broker.exists()


def test_without_mosquitto_nobody_gets_half_a_password(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(root))
    with pytest.raises(SettingError, match="mosquitto_passwd is missing"):
        main(["provision", "KT1000", "--data", str(root)])
    assert not list((Layout(root).broker / "credentials").iterdir())
    command(root, "provision", "KT1000", "--certificate")


def test_one_command_at_a_time(root: Path) -> None:
    with try_lock(Layout(root).broker / "lock") as lock:  # type: ignore[union-attr]
        assert lock
        with pytest.raises(SettingError, match="another command"):
            main(["provision", "KT1000", "--data", str(root)])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"USERNAME": "KT1000"}, "PASSWORD_FILE"),
        ({"PASSWORD_FILE": "file"}, "USERNAME"),
        ({"CA": "ca", "CERTIFICATE": "crt"}, "KEY"),
        ({"USERNAME": "KT1000", "PASSWORD_FILE": "file"}, "CA"),
    ],
)
def test_half_a_credential_is_refused(given: dict[str, str], named: str) -> None:
    with pytest.raises(SettingError, match=f"LAMPLIGHT_MQTT_{named}"):
        Credentials.read({f"LAMPLIGHT_MQTT_{name}": value for name, value in given.items()})
