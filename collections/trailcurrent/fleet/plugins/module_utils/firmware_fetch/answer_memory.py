"""What release pages answered earlier, on disk: asked again with its ETag, an unchanged page costs nothing."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import typing as t

from ..journal import read_json, write_atomically
from ..links.web import Answer

MODE: t.Final = 0o600  # a private repository's releases are nobody else's business


def default_memory_dir() -> pathlib.Path:
    """``trailcurrent/releases`` in the user's cache (XDG Base Directory Specification)."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(cache).expanduser() / "trailcurrent/releases"


class AnswerMemory:
    """One file for each URL.

    :param folder: made when the first answer comes; may be removed at any time
    :param writing: whether answers are kept, or only recalled (check mode)
    """

    def __init__(self, folder: pathlib.Path, *, writing: bool = True) -> None:
        self._folder = folder
        self._writing = writing

    def recall(self, url: str) -> Answer | None:
        """The last answer of that URL; None when there is none, or it is not what was kept.

        A page that is asked with the ETag of a damaged answer would say forever that there is nothing new.
        """
        said = read_json(self._path(url)) or {}
        url_kept, etag, body = (said.get(key) for key in ("url", "etag", "body"))
        if url_kept != url or not isinstance(etag, str) or not isinstance(body, str):
            return None
        return Answer(200, body.encode(), etag) if said.get("sha256") == _digest(etag, body) else None

    def keep(self, url: str, answer: Answer) -> None:
        """Remember an answer that has an ETag. :raises LinkError: ``state_unwritable``"""
        if self._writing and answer.etag and answer != self.recall(url):
            body = answer.body.decode("utf-8", "replace")
            content = {"url": url, "etag": answer.etag, "body": body, "sha256": _digest(answer.etag, body)}
            write_atomically(self._path(url), json.dumps(content).encode(), MODE)

    def _path(self, url: str) -> pathlib.Path:
        return self._folder / f"{hashlib.sha256(url.encode()).hexdigest()}.json"


def _digest(etag: str, body: str) -> str:
    return hashlib.sha256(f"{etag}\n{body}".encode("utf-8", "surrogatepass")).hexdigest()
