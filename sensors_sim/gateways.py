"""Which posts are simulated, and the connections that they share: a gateway's posts one, or each post its own."""

import resource
from collections.abc import Callable
from pathlib import Path

from contracts.payloads import SCHEMA_VERSION, Will, encode
from contracts.registry import Lamppost, load_registry
from contracts.settings import SettingError
from contracts.topics import device_topic, receipt_topic
from sensors_sim.boots import new_boot_id
from sensors_sim.config import Config
from sensors_sim.devices import Message
from sensors_sim.links import Link


def choose_posts(path: Path, count: int | None, moment_us: int) -> tuple[Lamppost, ...]:
    """The first lampposts that are valid now, the areas in turn. Raises SettingError when there are too few."""
    found = [post for post in load_registry(path).valid(moment_us) if post.kind == "lamppost"]
    found.sort(key=lambda post: (post.post_id[2:], post.post_id))
    if not found or (count or 0) > len(found):
        raise SettingError(
            f"{path} has {len(found)} lampposts: make more with `python -m sensors_sim fleet --posts {count or 400}`"
        )
    return tuple(found[:count])


def make_links(
    posts: tuple[Lamppost, ...], config: Config, boot_ids: list[str], read: Callable[[Message], bytes]
) -> list[Link]:
    """The link of each post, in order of the posts; each link hears its posts' receipts. `boot_ids` are looked at when
    a connection is made. Raises SettingError when so many files may not be open."""
    names = [post.gateway_id if config.connections == "gateway" and post.gateway_id else post.post_id for post in posts]
    wanted = len(set(names)) + 128
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted > soft:
        if wanted > hard:
            raise SettingError(f"{wanted} open files are needed, {hard} are allowed: use --connections gateway")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    made: dict[str, Link] = {}
    for number, (name, post) in enumerate(zip(names, posts, strict=True)):
        if name not in made:
            will = _will(name, None if name != post.post_id else number, boot_ids)
            made[name] = Link(name, will, config.window, config.credentials, read)
        made[name].subscriptions.append(receipt_topic(post.post_id))
    return [made[name] for name in names]


def _will(name: str, post: int | None, boot_ids: list[str]) -> Callable[[int], tuple[str, bytes]]:
    """A gateway's will (`post` None) names the gateway and has its own boot; a post's carries the post's boot."""
    gateway_boot_id = new_boot_id()

    def will(connection: int) -> tuple[str, bytes]:
        message = Will(
            schema_version=SCHEMA_VERSION,
            boot_id=gateway_boot_id if post is None else boot_ids[post],
            connection=connection,
            gateway_id=name if post is None else None,
        )
        return device_topic(name, "status"), encode(message)

    return will
