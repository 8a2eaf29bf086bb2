"""One credential per device, gateway and service, in the folder that the broker runs from.

mosquitto.conf, acl, passwords, tls/   what the broker reads; after a change it wants a SIGHUP
credentials/{name}.password            made for the device: hand over, then delete
credentials/{name}.crt, {name}.key     likewise
authority/                             signs and remembers certificates

Every file is replaced as a whole, and the one by which a step counts is written last: a command that was cut short is
simply given again.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contracts.layout import try_lock
from contracts.registry import Registry
from contracts.settings import SettingError
from contracts.topics import POST_ID
from ingest import rules
from ingest.authority import Authority
from ingest.folder import PUBLIC, store
from ingest.passwords import Passwords

DEPLOY = Path(__file__).parents[1] / "deploy" / "mosquitto"
RECEIPTS = "receipts"
_INGEST = re.compile(r"ingest-[A-Za-z0-9_-]{1,64}")


class Accounts:
    """The names of one broker folder: post ids, gateway ids, `ingest-INSTANCE` and `receipts`.

    `host` is the broker's name or address, for its own certificate. `registry` is asked only when there are posts or
    gateways to look up; a gateway's posts are those that are valid at `now_us` (microseconds, UTC).
    """

    def __init__(self, folder: Path, host: str, registry: Callable[[], Registry], now_us: int):
        self._folder = folder
        self._credentials = folder / "credentials"
        self._host = host
        self._registry = registry
        self._now_us = now_us

    def provision(self, names: Sequence[str], gateways: Sequence[str], is_certificate: bool) -> str:
        """Make a credential for each name that has none; what was done, in one line.

        The gateways' lists of posts are made anew from the registry. Raises SettingError, with nothing changed, for
        a name that is unknown or that has a credential of the other kind.
        """
        wanted = list(dict.fromkeys([*names, *gateways]))
        if not wanted:
            raise SettingError("nobody to provision: name posts, ingest-INSTANCE, receipts, or --gateway GW0001")
        self._judge(names, gateways)
        with self._open() as (passwords, authority):
            other, kind = (passwords.names, "password") if is_certificate else (authority.names, "certificate")
            for name in wanted:
                if name in other:
                    raise SettingError(f"{name} has a {kind}, and one credential is enough: revoke it first")
            new = [name for name in wanted if name not in passwords.names | authority.names]
            self._grant(passwords.names | authority.names | set(wanted))
            if is_certificate:
                for name in new:
                    authority.issue(name, self._credentials)
            else:
                passwords.add(new, self._credentials)
        made = "certificates" if is_certificate else "passwords"
        kept = f", kept: {len(wanted) - len(new)}" if len(new) < len(wanted) else ""
        return f"{made} made: {len(new)}{kept}, in {self._credentials}; {_RELOAD}"

    def revoke(self, names: Sequence[str]) -> str:
        """Take away the credentials of these names; what was done, in one line. A name without one is passed over.

        Raises SettingError, with nothing changed, for what is no name.
        """
        for name in names:
            if not (POST_ID.fullmatch(name) or _is_service(name)):
                raise SettingError(f"{name!r} is no post, gateway, ingest-INSTANCE or receipts: change it")
        wanted = set(names)
        with self._open() as (passwords, authority):
            with_password, with_certificate = wanted & passwords.names, wanted & authority.names
            taken = with_password | with_certificate
            self._store_rules(self._rules() | {name: rules.revoked(name) for name in taken})
            passwords.remove(with_password)
            authority.revoke(with_certificate)
            for name in wanted:
                for suffix in ("password", "crt", "key"):
                    (self._credentials / f"{name}.{suffix}").unlink(missing_ok=True)
        without = f", had none: {len(wanted) - len(taken)}" if taken != wanted else ""
        return f"credentials revoked: {len(taken)}{without}; {_RELOAD}"

    def _judge(self, names: Sequence[str], gateways: Sequence[str]) -> None:
        posts = [name for name in names if not _is_service(name)]
        if not posts and not gateways:
            return
        registry = self._registry()
        known = {post.post_id for post in registry.file.lampposts}
        for name in posts:
            if name in registry.gateways:
                raise SettingError(f"{name} is a gateway: give it as --gateway {name}")
            if name not in known:
                raise SettingError(f"{name!r} is no post of the registry, ingest-INSTANCE or receipts: change it")
        for name in gateways:
            if name not in registry.gateways:
                raise SettingError(f"{name!r} is no gateway_id of the registry: change --gateway")

    def _grant(self, names: frozenset[str]) -> None:
        """Write the rules of everybody who has, or is about to get, a credential."""
        granted = {name: rule for name, rule in self._rules().items() if name not in names}
        granted |= {name: rules.ingest(name) for name in names if _INGEST.fullmatch(name)}
        if RECEIPTS in names:
            granted[RECEIPTS] = rules.receipts(RECEIPTS)
        if any(not _is_service(name) for name in names):
            registry = self._registry()
            valid = registry.valid(self._now_us)
            for name in names & registry.gateways:
                granted[name] = rules.gateway(name, [post.post_id for post in valid if post.gateway_id == name])
        self._store_rules(granted)

    def _rules(self) -> rules.Rules:
        path = self._folder / "acl"
        return rules.parse(path.read_text(encoding="utf-8")) if path.exists() else {}

    def _store_rules(self, granted: rules.Rules) -> None:
        patterns = (DEPLOY / "acl").read_text(encoding="utf-8")
        store(self._folder / "acl", rules.render(patterns, granted).encode(), PUBLIC)

    @contextmanager
    def _open(self) -> Iterator[tuple[Passwords, Authority]]:
        """The folder, made whole and ours alone. Raises SettingError when it cannot be."""
        try:
            for folder in (self._folder, self._credentials, self._folder / "data"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = try_lock(self._folder / "lock")
            if lock is None:
                raise SettingError(f"another command changes {self._folder}: wait for it, or change --folder")
            with lock:
                configuration = self._folder / "mosquitto.conf"
                if not configuration.exists():
                    store(configuration, (DEPLOY / "mosquitto.conf").read_bytes(), PUBLIC)
                passwords = Passwords(self._folder / "passwords")
                passwords.save()
                yield passwords, Authority(self._folder, self._host)
        except OSError as error:
            raise SettingError(f"{error.filename or self._folder} ({error.strerror}): change --folder") from error


_RELOAD = "now reload the broker (SIGHUP)"


def _is_service(name: str) -> bool:
    return name == RECEIPTS or _INGEST.fullmatch(name) is not None
