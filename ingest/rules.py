"""Mosquitto's access rules: the patterns that hold for every device, and a paragraph for each name that needs more.

In an ACL file what stands below `user NAME` is that user's, the patterns are everybody's, and `deny` comes first.
"""

from collections.abc import Iterable, Mapping

from contracts.topics import SUBSCRIPTION, config_topic, device_topic, receipt_topic

Rules = dict[str, str]  # a user's paragraph by name


def gateway(name: str, posts: Iterable[str]) -> str:
    """A gateway may be each of these posts."""
    lines = [f"user {name}"]
    for post_id in posts:
        lines += [
            f"topic write {device_topic(post_id, '#')}",
            f"topic read {receipt_topic(post_id)}",
            f"topic read {config_topic(post_id)}",
        ]
    return "\n".join(lines)


def ingest(name: str) -> str:
    """An ingest process reads all that devices send, and writes nothing."""
    return _service(name, f"topic read {SUBSCRIPTION}")


def receipts(name: str) -> str:
    """The receipts process writes receipts, and neither reads nor writes anything else."""
    return _service(name, f"topic write {receipt_topic('+')}")


def revoked(name: str) -> str:
    """A connection that still stands may do nothing any more: no list of certificates ends it."""
    return f"user {name}\ntopic deny #"


def _service(name: str, right: str) -> str:
    # the devices' patterns would give a service a place of its own to write
    own = (device_topic(name, "#"), receipt_topic(name), config_topic(name))
    return "\n".join([f"user {name}", *(f"topic deny {topic}" for topic in own), right])


def parse(text: str) -> Rules:
    """The users' paragraphs of an access file that `render` made."""
    paragraphs = (paragraph.strip("\n") for paragraph in text.split("\n\n"))
    return {each.split("\n")[0].removeprefix("user "): each for each in paragraphs if each.startswith("user ")}


def render(patterns: str, rules: Mapping[str, str]) -> str:
    """An access file: the patterns first, the users by name."""
    return "\n\n".join([patterns.strip("\n"), *(rules[name] for name in sorted(rules))]) + "\n"
