"""Text from peers is hostile: cap it and strip what cannot be printed before it reaches a log or a result."""

from __future__ import annotations

import time
import typing as t

PEER_TEXT_LIMIT: t.Final = 200  # characters; the longest text of a device in PROTOCOLS.md has 25


def printable(peer_text: bytes | str, limit: int = PEER_TEXT_LIMIT) -> str:
    """What a peer said, fit for a log: one line, printable, at most ``limit`` characters."""
    text = peer_text.decode("utf-8", "replace") if isinstance(peer_text, bytes) else peer_text
    clean = "".join(c if c.isprintable() else " " for c in text[: limit + 1]).strip()
    return clean if len(text) <= limit else clean[:limit] + "…"


def clock(epoch: object) -> str:
    """A time for people, in the host's zone; what is no time (a hostile message, a damaged file) is said to be none."""
    if not isinstance(epoch, float | int):
        return "an unknown time"
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(epoch))
    except (OverflowError, OSError, ValueError):
        return "an unknown time"
