"""The city's own certificate authority: client certificates whose CN is a name of the broker, and their revocation.

In the broker's folder: `authority/ca.key` (keep it from everybody, the broker included), `authority/{name}.crt` for
each certificate that is valid, `tls/ca.crt` and `tls/ca.crl` for the broker, `tls/server.crt` and `tls/server.key`.
"""

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from contracts.settings import SettingError
from ingest.folder import PRIVATE, PUBLIC, store

CA_LIFE = timedelta(days=20 * 365)
DEVICE_LIFE = timedelta(days=5 * 365)
SERVER_LIFE = timedelta(days=825)
BACKDATED = timedelta(hours=1)  # for clocks that are behind


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """Opens the authority of a folder, and makes it when there is none. `host` is the broker's name or address: its
    certificate is made for it and for this machine when `tls/server.crt` is missing."""

    def __init__(self, folder: Path, host: str):
        self._issued = folder / "authority"
        self._tls = folder / "tls"
        self._issued.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_path = self._issued / "ca.key"
        if not (self._tls / "ca.crt").exists():
            # a key without a certificate is left from a start that was cut short: nothing was signed with it
            self._make(key_path)
        try:
            key = load_pem_private_key(key_path.read_bytes(), None)
            self._certificate = x509.load_pem_x509_certificate((self._tls / "ca.crt").read_bytes())
        except ValueError as error:
            raise SettingError(f"the authority in {key_path} and {self._tls}/ca.crt is broken: restore it") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SettingError(f"{key_path} is not the key that this program made: restore it")
        self._key = key
        if not (self._tls / "ca.crl").exists():
            self._store_revoked({}, datetime.now(UTC) - 2 * BACKDATED)
        if not (self._tls / "server.crt").exists():
            self._make_server(host)

    @property
    def names(self) -> frozenset[str]:
        """Who has a certificate that is not revoked."""
        return frozenset(path.stem for path in self._issued.glob("*.crt"))

    def issue(self, name: str, credentials: Path) -> None:
        """Make `{name}.key` and `{name}.crt` in the folder of credentials; it counts as issued once both lie there."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(name, key, DEVICE_LIFE).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        store(credentials / f"{name}.key", _pem(key), PRIVATE)
        store(credentials / f"{name}.crt", certificate, PRIVATE)
        store(self._issued / f"{name}.crt", certificate, PRIVATE)

    def revoke(self, names: Iterable[str]) -> None:
        """Put the certificates of these names on the revocation list."""
        paths = [self._issued / f"{name}.crt" for name in names]
        if not paths:
            return
        serials = [x509.load_pem_x509_certificate(path.read_bytes()).serial_number for path in paths]
        before = x509.load_pem_x509_crl((self._tls / "ca.crl").read_bytes())
        revoked = {each.serial_number: each.revocation_date_utc for each in before}
        # The broker keeps a list that it has read, and OpenSSL heeds the one with the later second.
        moment = max(datetime.now(UTC) - BACKDATED, before.last_update_utc + timedelta(seconds=1))
        self._store_revoked({**dict.fromkeys(serials, moment), **revoked}, moment)
        for path in paths:
            path.unlink()

    def _make(self, key_path: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name("Lamplight broker authority"))
            .issuer_name(_name("Lamplight broker authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * BACKDATED)
            .not_valid_after(now + CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_usage(is_authority=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        store(key_path, _pem(key), PRIVATE)
        store(self._tls / "ca.crt", certificate.public_bytes(Encoding.PEM), PUBLIC)

    def _make_server(self, host: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = []
        for each in dict.fromkeys([host, "localhost", "127.0.0.1"]):
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(each)))
            except ValueError:
                names.append(x509.DNSName(each))
        builder = (
            self._builder(host, key, SERVER_LIFE)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        store(self._tls / "server.key", _pem(key), PRIVATE)
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        store(self._tls / "server.crt", certificate, PUBLIC)

    def _builder(self, name: str, key: ec.EllipticCurvePrivateKey, life: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(min(now + life, self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(_usage(is_authority=False), critical=True)
        )

    def _store_revoked(self, revoked: dict[int, datetime], moment: datetime) -> None:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(moment)
            # a list that has expired would shut out every device
            .next_update(self._certificate.not_valid_after_utc)
        )
        for serial, since in revoked.items():
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
            builder = builder.add_revoked_certificate(one)
        content = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        store(self._tls / "ca.crl", content, PUBLIC)


def _usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
