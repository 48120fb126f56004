"""Release pages as GitHub serves them, on this machine: its API, its web host and its storage, on three addresses.

    pages = ReleasePages()
    pages.publish("owner/gnss", "v1.2.0", {"firmware.bin": make_image(version="1.2.0")})
    pages.repositories["owner/empty"] = Repository()        # there, without a release
    with pages:
        print(pages.api_url)        # http://127.28.0.1:<port>; files are on .2, which sends on to .3
        pages.faults = Faults(failures=2)
        print([request.host for request in pages.requests])

Source: docs.github.com, "REST API endpoints for releases", "Rate limits for the REST API", "Best practices for using
the REST API" (version 2022-11-28). As there: who names no User-Agent is refused; a repository that one may not see is
not there; an answer that is still right (304) costs nothing of the share of who has a token; a file's public address
knows no tokens, and the storage refuses a request that brings one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import threading
import time
import types
import typing as t
import urllib.parse

ADDRESSES: t.Final = {"api": "127.28.0.1", "web": "127.28.0.2", "storage": "127.28.0.3"}
SHARES: t.Final = {False: 60, True: 5000}
"""Requests in an hour, without and with a token."""
HOUR: t.Final = 3600
PIECE: t.Final = 4096
DATE: t.Final = "2026-11-01T12:00:00Z"

Headers = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Release:
    """One release.

    :param digests: whether its files' SHA-256 is announced; releases of before June 2025 have none
    """

    tag: str
    files: dict[str, bytes]
    prerelease: bool = False
    draft: bool = False
    digests: bool = True


@dataclasses.dataclass
class Repository:
    """A repository and its releases, the newest last."""

    releases: list[Release] = dataclasses.field(default_factory=list)
    private: bool = False

    def latest(self) -> Release | None:
        """The newest that is neither draft nor pre-release."""
        full = (release for release in reversed(self.releases) if not release.draft and not release.prerelease)
        return next(full, None)

    def tagged(self, tag: str) -> Release | None:
        """The release of a tag."""
        return next((release for release in self.releases if release.tag == tag and not release.draft), None)


@dataclasses.dataclass
class Faults:
    """What goes wrong, from now on.

    :param failures: so many answers of any host are 503; counts down
    :param exhausted: until when the API's share is used up, in s since the epoch
    :param secondary: the API answers 403 with Retry-After, of so many seconds
    :param truncations: so many downloads end after half of their bytes; counts down
    :param corrupt: a byte of each download is another one
    :param longer: each download has bytes after its announced end, and no Content-Length
    :param gone: files are announced, and the web host has none of them
    :param endless: the API's answers never end
    :param portal: the API answers with a log-in page, as a camp site's network does
    :param silence: s before each host answers
    :param redirect: where the web host sends to, in place of the storage
    """

    failures: int = 0
    exhausted: int | None = None
    secondary: int | None = None
    truncations: int = 0
    corrupt: bool = False
    longer: bool = False
    gone: bool = False
    endless: bool = False
    portal: bool = False
    silence: float = 0.0
    redirect: str | None = None


@dataclasses.dataclass(frozen=True)
class Request:
    """One request that came: to which of the three hosts, and with which headers (names in lower case)."""

    host: str
    path: str
    headers: Headers


@dataclasses.dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes = b""
    headers: Headers = dataclasses.field(default_factory=dict)


class ReleasePages:
    """Three hosts, from ``with`` to its end.

    :param token: the one token that is good
    """

    def __init__(self, token: str = "good-token") -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.peak = 0
        """The most requests that were under way at once."""
        self._token = token
        self._used = {False: 0, True: 0}
        self._turn = threading.Lock()
        self._under_way = 0
        self._servers: dict[str, _Server] = {}

    def publish(self, repository: str, tag: str, files: dict[str, bytes], **said: bool) -> None:
        """Add a release to a repository, which is made where it is not there."""
        there = self.repositories.setdefault(repository, Repository())
        there.releases.append(Release(tag, dict(files), **said))

    def __enter__(self) -> t.Self:
        for host, address in ADDRESSES.items():
            self._servers[host] = _Server(self, host, address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        for server in self._servers.values():
            server.end()

    @property
    def api_url(self) -> str:
        """The base of the API."""
        return self.url("api")

    def url(self, host: str) -> str:
        """The base of ``api``, ``web`` or ``storage``."""
        address, port, *_rest = self._servers[host].server_address
        return f"http://{address!s}:{port}"

    def answer(self, request: Request) -> _Answer:
        """What a host answers."""
        with self._turn:
            self.requests.append(request)
            if self.faults.failures > 0:
                self.faults.failures -= 1
                return _Answer(503, b"Service Unavailable")
        serve = {"api": self._api, "web": self._web, "storage": self._storage}[request.host]
        return serve(request, urllib.parse.urlsplit(request.path).path.strip("/").split("/"))

    # the API

    def _api(self, request: Request, parts: list[str]) -> _Answer:
        if self.faults.portal:
            return _Answer(
                200, b"<html><title>Welcome to Lakeside Camping</title></html>", {"Content-Type": "text/html"}
            )
        if not request.headers.get("user-agent"):
            return _Answer(403, b"Request forbidden by administrative rules.")
        known = request.headers.get("authorization") == f"Bearer {self._token}"
        if "authorization" in request.headers and not known:
            return _json(401, {"message": "Bad credentials"})
        refused = self._refused(known)
        if refused:
            return refused
        answer = self._resource(request, [urllib.parse.unquote(part) for part in parts], known)
        return self._counted(request, answer, known)

    def _refused(self, known: bool) -> _Answer | None:
        message = {"message": "API rate limit exceeded for 127.0.0.1."}
        if self.faults.secondary is not None:
            return _json(403, message, {"Retry-After": str(self.faults.secondary)})
        until = self.faults.exhausted
        if until is None and self._used[known] >= SHARES[known]:
            until = int(time.time()) + HOUR
        return None if until is None else _json(403, message, self._share(known, 0, until))

    def _counted(self, request: Request, answer: _Answer, known: bool) -> _Answer:
        etag = f'W/"{hashlib.sha256(answer.body).hexdigest()}"'
        same = answer.status == 200 and request.headers.get("if-none-match") == etag
        if not (same and known):
            self._used[known] += 1
        share = self._share(known, max(0, SHARES[known] - self._used[known]), int(time.time()) + HOUR)
        if answer.status != 200:
            return dataclasses.replace(answer, headers={**answer.headers, **share})
        return _Answer(304 if same else 200, b"" if same else answer.body, {**answer.headers, **share, "ETag": etag})

    def _share(self, known: bool, left: int, until: int) -> Headers:
        return {
            "X-RateLimit-Limit": str(SHARES[known]),
            "X-RateLimit-Remaining": str(left),
            "X-RateLimit-Reset": str(until),
        }

    def _resource(self, request: Request, parts: list[str], known: bool) -> _Answer:
        missing = _json(404, {"message": "Not Found", "status": "404"})
        name = "/".join(parts[1:3])
        repository = self.repositories.get(name)
        if (
            parts[0] != "repos"
            or parts[3:4] != ["releases"]
            or repository is None
            or (repository.private and not known)
        ):
            return missing
        match parts[4:]:
            case []:
                shown = [entry for entry in reversed(repository.releases) if not entry.draft]
                return _json(200, [self._release(name, entry) for entry in shown])
            case ["latest"]:
                release = repository.latest()
            case ["tags", *tag]:
                release = repository.tagged("/".join(tag))
            case ["assets", number]:
                return self._asset(request, number, missing)
            case _:
                return missing
        return missing if release is None else _json(200, self._release(name, release))

    def _release(self, name: str, release: Release) -> dict[str, t.Any]:
        return {
            "tag_name": release.tag,
            "name": release.tag,
            "draft": release.draft,
            "prerelease": release.prerelease,
            "published_at": DATE,
            "assets": [self._described(name, release, file) for file in release.files],
        }

    def _described(self, name: str, release: Release, file: str) -> dict[str, t.Any]:
        content = release.files[file]
        download = "/".join(urllib.parse.quote(part, safe="") for part in (release.tag, file))
        return {
            "url": f"{self.api_url}/repos/{name}/releases/assets/{_number(name, release.tag, file)}",
            "name": file,
            "state": "uploaded",
            "content_type": "application/octet-stream",
            "size": len(content),
            "digest": f"sha256:{hashlib.sha256(content).hexdigest()}" if release.digests else None,
            "browser_download_url": f"{self.url('web')}/{name}/releases/download/{download}",
        }

    def _asset(self, request: Request, number: str, missing: _Answer) -> _Answer:
        for name, release, file in self._files():
            if str(_number(name, release.tag, file)) == number:
                if request.headers.get("accept") != "application/octet-stream":
                    return _json(200, self._described(name, release, file))
                return self._sent_on(number)
        return missing

    # the web host and the storage

    def _web(self, request: Request, parts: list[str]) -> _Answer:
        path = [urllib.parse.unquote(part) for part in parts]
        for name, release, file in self._files():
            wanted = [*name.split("/"), "releases", "download", release.tag, file]
            if path == wanted and not self.repositories[name].private and not self.faults.gone:
                return self._sent_on(str(_number(name, release.tag, file)))
        return _Answer(404, b"Not Found", {"Content-Type": "text/plain"})

    def _sent_on(self, number: str) -> _Answer:
        place = self.faults.redirect or f"{self.url('storage')}/{number}?X-Amz-Signature=secret"
        return _Answer(302, b"", {"Location": place})

    def _storage(self, request: Request, parts: list[str]) -> _Answer:
        if "authorization" in request.headers:
            return _Answer(400, b"<Error><Code>InvalidArgument</Code></Error>", {"Content-Type": "application/xml"})
        for name, release, file in self._files():
            if parts == [str(_number(name, release.tag, file))]:
                return _Answer(200, self._spoilt(release.files[file]), {"Content-Type": "application/octet-stream"})
        return _Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def _spoilt(self, content: bytes) -> bytes:
        if self.faults.corrupt:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        return content

    def _files(self) -> list[tuple[str, Release, str]]:
        return [
            (name, release, file)
            for name, repository in self.repositories.items()
            for release in repository.releases
            for file in release.files
        ]

    def count(self, change: int) -> None:
        """A request begins (1) or ends (-1)."""
        with self._turn:
            self._under_way += change
            self.peak = max(self.peak, self._under_way)

    def cut(self) -> bool:
        """Whether this download is one that ends too early."""
        with self._turn:
            cut = self.faults.truncations > 0
            self.faults.truncations -= cut
            return cut


class _Server(http.server.ThreadingHTTPServer):
    """One host."""

    daemon_threads = True

    def __init__(self, pages: ReleasePages, host: str, address: str) -> None:
        self.pages = pages
        self.host = host
        super().__init__((address, 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, name=host)
        self._thread.start()

    def end(self) -> None:
        """Stop, and free the port."""
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Answer one request, with the faults that are set."""
        pages, faults = self.server.pages, self.server.pages.faults
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = pages.answer(Request(self.server.host, self.path, headers))
        pages.count(1)
        time.sleep(faults.silence)
        pages.count(-1)
        file = self.server.host == "storage" and answer.status == 200
        body = answer.body
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        endless = faults.endless and self.server.host == "api"
        if not endless and not (faults.longer and file) and answer.status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.close_connection = True
        self.end_headers()
        try:
            self._send(body[: len(body) // 2] if file and pages.cut() else body)
            while endless or (faults.longer and file):
                self._send(b" " * PIECE)
        except ConnectionError:
            return  # the client has seen enough

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the requests are on record."""


def _json(status: int, content: object, headers: Headers | None = None) -> _Answer:
    body = json.dumps(content).encode()
    return _Answer(status, body, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})


def _number(name: str, tag: str, file: str) -> int:
    """A file's number at GitHub."""
    return int.from_bytes(hashlib.sha256(f"{name}/{tag}/{file}".encode()).digest()[:4], "big")
