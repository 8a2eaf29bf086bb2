"""Who a client is to a locked broker: TLS, with a name and a password or with a client certificate.

LAMPLIGHT_MQTT_CA            certificate of the authority that the broker's certificate must come from; turns TLS on
LAMPLIGHT_MQTT_USERNAME      name, with
LAMPLIGHT_MQTT_PASSWORD_FILE the file whose first line is the password; or
LAMPLIGHT_MQTT_CERTIFICATE   client certificate, with
LAMPLIGHT_MQTT_KEY           its private key

A password itself is in no variable and in no object that could be printed: it is read when a client is made.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contracts.settings import SettingError

_CA = "LAMPLIGHT_MQTT_CA"
_USERNAME = "LAMPLIGHT_MQTT_USERNAME"
_PASSWORD_FILE = "LAMPLIGHT_MQTT_PASSWORD_FILE"
_CERTIFICATE = "LAMPLIGHT_MQTT_CERTIFICATE"
_KEY = "LAMPLIGHT_MQTT_KEY"
HINT = f"{_USERNAME}, {_PASSWORD_FILE}, {_CA}, {_CERTIFICATE} or {_KEY}"


class Client(Protocol):
    """What is needed of an MQTT client: paho's has it."""

    def username_pw_set(self, username: str | None, password: str | None = None) -> None: ...

    def tls_set_context(self, context: ssl.SSLContext | None = None) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The five variables as given; None where unset. All None: no TLS and no name, as on the demo's broker."""

    ca: str | None = None
    username: str | None = None
    password_file: str | None = None
    certificate: str | None = None
    key: str | None = None

    @staticmethod
    def read(environ: Mapping[str, str]) -> "Credentials":
        """From the environment. Raises SettingError when one variable lacks the other that it needs."""
        given = {name: environ.get(name) or None for name in (_CA, _USERNAME, _PASSWORD_FILE, _CERTIFICATE, _KEY)}
        for one, other in ((_USERNAME, _PASSWORD_FILE), (_CERTIFICATE, _KEY)):
            if (given[one] is None) != (given[other] is None):
                there, lacking = (one, other) if given[one] else (other, one)
                raise SettingError(f"{there} needs {lacking} beside it: set both or neither")
        if given[_CA] is None and (given[_USERNAME] or given[_CERTIFICATE]):
            raise SettingError(f"{_CA} is needed: a credential is given to a broker that proves itself, over TLS only")
        return Credentials(
            ca=given[_CA],
            username=given[_USERNAME],
            password_file=given[_PASSWORD_FILE],
            certificate=given[_CERTIFICATE],
            key=given[_KEY],
        )

    def of(self, name: str) -> "Credentials":
        """The same with `{name}` filled in: one setting for many devices."""

        def filled(text: str | None) -> str | None:
            return None if text is None else text.replace("{name}", name)

        return Credentials(
            ca=self.ca,
            username=filled(self.username),
            password_file=filled(self.password_file),
            certificate=filled(self.certificate),
            key=filled(self.key),
        )

    def give(self, client: Client) -> None:
        """Let a client use them. Raises SettingError that names the variable whose file cannot be used."""
        if self.ca is not None:
            client.tls_set_context(self._context(self.ca))
        if self.username is not None and self.password_file is not None:
            client.username_pw_set(self.username, _first_line(self.password_file))

    def _context(self, ca: str) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=ca)
        except OSError as error:
            raise SettingError(f"{_CA}={ca!r} is not usable: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except OSError as error:
                raise SettingError(
                    f"{_CERTIFICATE}={self.certificate!r} with {_KEY}={self.key!r} is not usable: {error}"
                ) from error
        return context


def _first_line(path: str) -> str:
    try:
        line = Path(path).read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingError(f"{_PASSWORD_FILE}={path!r} cannot be read: {reason}") from None
    if not line:
        raise SettingError(f"{_PASSWORD_FILE}={path!r} is empty")
    return line
