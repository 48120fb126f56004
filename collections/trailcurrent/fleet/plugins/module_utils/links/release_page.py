"""A release page: GitHub's API for releases, or a mirror that answers alike.

    page = ReleasePage(Web("https://api.github.com"))
    release = page.newest("owner/name")     # None: there is none yet
    page.download("owner/name", release, release.assets["firmware.bin"], sink)

Source: docs.github.com, "REST API endpoints for releases" and "for release assets" (version 2022-11-28).
"""

from __future__ import annotations

import typing as t
import urllib.parse

from ..errors import InputError, RefusedError
from ..formats.firmware_sources import Asset, Release, parse_release, parse_tags
from ..text import printable
from .web import Answer, Sink, Web, origin

API_URL: t.Final = "https://api.github.com"
JSON: t.Final = "application/vnd.github+json"
BYTES: t.Final = "application/octet-stream"  # asks the API for a file's bytes in place of its description
TAGS_SHOWN: t.Final = 5


class Memory(t.Protocol):
    """What earlier runs were answered: an answer that is still right costs the host nothing, and us no share."""

    def recall(self, url: str) -> Answer | None:
        """The last answer of that URL."""

    def keep(self, url: str, answer: Answer) -> None:
        """Remember an answer."""


class NoMemory:
    """Remembers nothing."""

    def recall(self, url: str) -> Answer | None:
        """Nothing."""
        del url
        return None

    def keep(self, url: str, answer: Answer) -> None:
        """Let it go."""


class ReleasePage:
    """The releases behind one base URL.

    :param api_url: the base of the API; that of ``web``
    :param download_url: takes the files from ``<download_url>/<owner>/<name>/releases/download/<tag>/<file>``, as they
        lie on GitHub, in place of where the page says
    :param private: whether there is a token: files are then asked for through the API, since the public address of a
        private repository's file knows browsers only
    """

    def __init__(
        self,
        web: Web,
        api_url: str = API_URL,
        *,
        download_url: str = "",
        private: bool = False,
        memory: Memory | None = None,
    ) -> None:
        self._web = web
        self._base = api_url.rstrip("/")
        self._mirror = download_url.rstrip("/")
        self._private = private
        self._memory = memory or NoMemory()
        if self._mirror and not web.allowed(self._mirror):
            raise InputError(
                "invalid_option",
                f"`firmware_download_url` is {printable(self._mirror)!r}, which is no https URL; correct it.",
            )

    def newest(self, repository: str) -> Release | None:
        """The newest release that is no draft and no pre-release; None when there is none.

        :raises InputError: ``invalid_option``: there is no such repository
        :raises LinkError: ``release_unreachable``
        :raises RefusedError: ``release_refused``
        """
        release = self._release(repository, "latest")
        if release is None:
            self.tags(repository)
        return release

    def tagged(self, repository: str, tag: str) -> Release:
        """The release of a tag.

        :raises InputError: ``invalid_option``: there is none, or no such repository; raises as ``newest`` besides
        """
        release = self._release(repository, f"tags/{urllib.parse.quote(tag, safe='')}")
        if release is None:
            there = ", ".join(map(printable, self.tags(repository)[:TAGS_SHOWN])) or "none at all"
            raise InputError(
                "invalid_option",
                f"{repository} has no release {printable(tag)!r} (the newest are: {there}); correct the `version` in"
                " `firmware_sources`.",
                repository=repository,
            )
        return release

    def tags(self, repository: str) -> list[str]:
        """The tags of all releases, newest first, pre-releases too; raises as ``newest`` does."""
        url = f"{self._base}/repos/{repository}/releases"
        answer = self._web.ask(url, accept=JSON)
        if answer.status != 200:
            hidden = "`firmware_token` is of somebody who may not see it" if self._private else "it is private, and"
            advice = "give another one" if self._private else "needs `firmware_token`"
            raise InputError(
                "invalid_option",
                f"The release page knows no repository {repository}: its name is wrong in `firmware_sources`, or"
                f" {hidden} {advice}.",
                repository=repository,
            )
        return parse_tags(answer.body, url)

    def download(self, repository: str, release: Release, asset: Asset, sink: Sink) -> str:
        """Get one file of a release, of the announced size; returns the address that it came from.

        :raises LinkError: ``release_unreachable``, ``download_mismatch``
        :raises RefusedError: ``release_refused``, ``asset_missing``
        """
        url, accept = self._address(repository, release.tag, asset)
        if not self._web.download(url, sink, size=asset.size, accept=accept):
            raise RefusedError(
                "asset_missing",
                f"Tried to download {printable(asset.name)} of {repository} {release.tag}, which is not at"
                f" {printable(url)}; check `firmware_download_url` where you use a mirror, else run it again.",
                repository=repository,
            )
        return url

    def url_of(self, repository: str, tag: str, asset: Asset) -> str:
        """The public address of a file, for the record."""
        return self._mirrored(repository, tag, asset) if self._mirror else asset.url

    def _address(self, repository: str, tag: str, asset: Asset) -> tuple[str, str]:
        if self._mirror:
            return self._mirrored(repository, tag, asset), "*/*"
        if self._private and self._web.allowed(asset.api_url) and origin(asset.api_url) == origin(self._base):
            return asset.api_url, BYTES
        return asset.url, "*/*"

    def _mirrored(self, repository: str, tag: str, asset: Asset) -> str:
        quoted = (urllib.parse.quote(part, safe="") for part in (tag, asset.name))
        return "/".join((self._mirror, repository, "releases/download", *quoted))

    def _release(self, repository: str, which: str) -> Release | None:
        url = f"{self._base}/repos/{repository}/releases/{which}"
        known = self._memory.recall(url)
        answer = self._web.ask(url, accept=JSON, etag=known.etag if known else "")
        if answer.status == 304 and known:
            answer = known
        if answer.status != 200:
            return None
        release = parse_release(answer.body, url)
        self._memory.keep(url, answer)
        return release
