"""Files from the web, for a user who trusts one host with a token and no other: bounded, and https alone.

    web = Web("https://api.github.com", token="…")
    answer = web.ask("https://api.github.com/repos/owner/name/releases/latest")
    web.download("https://github.com/…/firmware.bin", file, size=262144)

Proxies are those of the environment (``https_proxy``, ``no_proxy``) unless one is given; the authorities that sign
certificates are the system's, or those of the file that ``SSL_CERT_FILE`` names.

What goes wrong in passing (no connection, silence, 5xx, a body that ends early) is tried again; a refusal is not.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import email.message
import http.client
import math
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request

from ..errors import InputError, LinkError, RefusedError
from ..text import clock, printable

ANSWER_LIMIT: t.Final = 4 << 20  # bytes; a release with a thousand files, the most that GitHub takes, has 2 MiB
DEFAULT_TIMEOUT: t.Final = 30.0  # s of silence
DEADLINE: t.Final = 1800.0  # s for one file; 16 MiB over 100 kbit/s take 1,350
ATTEMPTS: t.Final = 3
PAUSE: t.Final = 1.0  # s before the second attempt, twice that before the third
PIECE: t.Final = 1 << 16  # bytes read at once
REDIRECTS: t.Final = 5  # a release's file takes one or two
AGENT: t.Final = "trailcurrent-fleet"  # GitHub answers 403 to who names none
TOO_EARLY: t.Final = frozenset({408, 425})
RATE_LIMITED: t.Final = 429

Sleep = collections.abc.Callable[[float], None]
Headers = collections.abc.Mapping[str, str]


class Sink(t.Protocol):
    """Where a download goes; begun anew at each attempt."""

    def begin(self) -> None:
        """Forget what came so far."""

    def write(self, data: bytes, /) -> object:
        """Take the next piece."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """A whole answer: 200 with its body, 304 (nothing new) or 404 without.

    :param etag: the name of this content, to ask again with; empty when the host gives none
    """

    status: int
    body: bytes
    etag: str


class Web:
    """A client for one base URL and wherever it sends us.

    :param base: ``https://host[:port][/path]``; with ``http://``, files are taken over http as well
    :param token: sent to the host of ``base`` alone
    :param proxy: ``http://host:port``; None = as the environment says
    :param timeout: seconds without a byte before an attempt is given up
    :raises InputError: ``invalid_option``: base or proxy is no such URL
    """

    def __init__(
        self,
        base: str,
        *,
        token: str | None = None,
        proxy: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        sleep: Sleep = time.sleep,
    ) -> None:
        _check_url("firmware_api_url", base)
        self._home = origin(base)
        self._schemes = frozenset({"https", self._home[0]})
        self._token = token
        self._timeout = timeout
        self._sleep = sleep
        self._opener = urllib.request.OpenerDirector()
        for handler in (_proxies(proxy), urllib.request.UnknownHandler(), urllib.request.HTTPHandler(),
                        urllib.request.HTTPSHandler(), urllib.request.HTTPDefaultErrorHandler(), _Redirects(self),
                        urllib.request.HTTPErrorProcessor()):  # fmt: skip
            self._opener.add_handler(handler)

    def ask(self, url: str, *, accept: str = "application/json", etag: str = "") -> Answer:
        """Get a page of at most ``ANSWER_LIMIT`` bytes.

        :param etag: of the content that is here already
        :raises LinkError: ``release_unreachable``
        :raises RefusedError: ``release_refused``, or ``release_unreachable`` when the answer is endless
        """
        headers = {"Accept": accept, **({"If-None-Match": etag} if etag else {})}
        return self._try(url, lambda: self._ask(url, headers))

    def download(self, url: str, sink: Sink, *, size: int, accept: str = "*/*") -> bool:
        """Get a file of ``size`` bytes; False when it is not there.

        :raises LinkError: ``release_unreachable``; ``download_mismatch``: it has another size, at each attempt
        :raises RefusedError: ``release_refused``
        """
        return self._try(url, lambda: self._download(url, sink, size, accept))

    def allowed(self, url: str) -> bool:
        """Whether a URL may be asked at all: https, or http where the base is."""
        try:
            scheme, host, _port = origin(url)
        except ValueError:
            return False
        return scheme in self._schemes and bool(host)

    def headers(self, url: str, headers: Headers) -> dict[str, str]:
        """``headers`` for one host: with the token, or without."""
        own = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        own["User-Agent"] = AGENT
        if self._token and origin(url) == self._home:
            own["Authorization"] = f"Bearer {self._token}"
        return own

    def _try(self, url: str, act: collections.abc.Callable[[], Result]) -> Result:
        for attempt in range(1, ATTEMPTS):
            try:
                return act()
            except LinkError:
                self._sleep(PAUSE * 2 ** (attempt - 1))
        return act()

    def _ask(self, url: str, headers: Headers) -> Answer:
        response = self._open(url, headers)
        if isinstance(response, int):
            return Answer(response, b"", "")
        with response:
            body = bytearray()
            for piece in _pieces(response, url):
                body += piece
                if len(body) > ANSWER_LIMIT:
                    raise RefusedError(
                        "release_unreachable",
                        f"Asked {shown(url)}, and it answers more than {ANSWER_LIMIT:,} bytes, as no release page does;"
                        " check `firmware_api_url`.",
                    )
            _check_length(response, url, len(body))
            return Answer(200, bytes(body), response.headers.get("ETag", ""))

    def _download(self, url: str, sink: Sink, size: int, accept: str) -> bool:
        response = self._open(url, {"Accept": accept})
        if isinstance(response, int):
            return False
        with response:
            sink.begin()
            received = 0
            for piece in _pieces(response, url):
                received += len(piece)
                if received > size:
                    raise _wrong_size(url, f"more than the {size:,} bytes")
                sink.write(piece)
        if received != size:
            raise _wrong_size(url, f"{received:,} of the {size:,} bytes")
        return True

    def _open(self, url: str, headers: Headers) -> http.client.HTTPResponse | int:
        """The answer 200, its body unread; 304 and 404 as numbers."""
        if not self.allowed(url):
            raise _not_allowed(url)
        request = urllib.request.Request(url, headers=self.headers(url, headers))
        try:
            response: http.client.HTTPResponse = self._opener.open(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            with error:
                return self._judge(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _unreachable(url, _reason(error, self._timeout)) from error
        if response.status != 200:
            with response:
                raise _unreachable(url, f"it answered {response.status}")
        return response

    def _judge(self, error: urllib.error.HTTPError) -> int:
        """304 or 404; any other error is raised in our terms."""
        if error.code in (304, 404):
            return error.code
        if error.code < 400:
            raise _refused(error.url, "it sends us in a circle, or to what is no web address", "check its address")
        seen = f"it answered {error.code} {printable(str(error.reason), 60)}"
        if error.code >= 500 or error.code in TOO_EARLY:
            raise _unreachable(error.url, seen)
        limited = _limit(error.headers)
        if error.code == RATE_LIMITED or limited:
            seen = f"it has answered often enough for now{limited}"
            raise _refused(error.url, seen, "wait until then, or give `firmware_token`: its owner has a larger share")
        if error.code == 401 and self._token:
            raise _refused(error.url, "it does not take the token", "correct or renew `firmware_token`")
        raise _refused(error.url, seen, "check its address; give `firmware_token` when it asks for one")


Result = t.TypeVar("Result")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows with the headers that the next host may have."""

    max_redirections = REDIRECTS

    def __init__(self, web: Web) -> None:
        self._web = web

    def redirect_request(  # noqa: PLR0917 - urllib's signature
        self,
        req: urllib.request.Request,
        fp: t.IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request:
        """The next request; see ``urllib``."""
        if not self._web.allowed(newurl):
            fp.close()
            raise _not_allowed(newurl)
        kept = {name: value for name, value in req.header_items() if name.lower() in ("accept", "if-none-match")}
        return urllib.request.Request(newurl, headers=self._web.headers(newurl, kept))


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: who gets to see what is sent. :raises ValueError: for a malformed URL"""
    parts = urllib.parse.urlsplit(url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    return scheme, host, parts.port or (443 if scheme == "https" else 80)


def shown(url: str) -> str:
    """A URL for people: without what may be a secret in its query."""
    return printable(url.partition("?")[0].partition("#")[0])


def _check_url(option: str, url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        bare = not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        usable = bare = False
    if not (usable and bare):
        raise InputError(
            "invalid_option",
            f"`{option}` is {shown(url.rpartition('@')[2])!r}, which is no URL like https://host[:port][/path];"
            " correct it.",
        )


def _proxies(proxy: str | None) -> urllib.request.ProxyHandler:
    if not proxy:
        return urllib.request.ProxyHandler()
    parts = urllib.parse.urlsplit(proxy)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("invalid_option", "`firmware_proxy` is no URL like http://host:port; correct it.")
    return urllib.request.ProxyHandler({"http": proxy, "https": proxy})


def _pieces(response: http.client.HTTPResponse, url: str) -> collections.abc.Iterator[bytes]:
    """The body as it comes, each piece within the time-out and all of them within ``DEADLINE``."""
    end = time.monotonic() + DEADLINE
    try:
        while piece := response.read1(PIECE):
            yield piece
            if time.monotonic() > end:
                raise _unreachable(url, f"it was not through after {DEADLINE:.0f} s")
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(url, _reason(error, math.nan)) from error


def _check_length(response: http.client.HTTPResponse, url: str, received: int) -> None:
    """``read1`` takes an end that comes too early for an end."""
    announced = response.headers.get("Content-Length", "")
    if announced.isascii() and announced.isdigit() and int(announced) != received:
        raise _unreachable(url, f"its answer broke off after {received:,} of {int(announced):,} bytes")


def _limit(headers: email.message.Message | None) -> str:
    """Until when a host answers no more, in words; empty when its headers say no such thing."""
    said = headers or email.message.Message()
    after, left, until = (said.get(name, "") for name in ("Retry-After", "X-RateLimit-Remaining", "X-RateLimit-Reset"))
    if after.isascii() and after.isdigit():
        return f" (again in {int(after[:9])} s)"
    if left == "0" and until.isascii() and until.isdigit():
        return f" (again at {clock(int(until[:12]))})"
    return " (it does not say until when)" if left == "0" else ""


def _reason(error: BaseException, timeout: float) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "it fell silent" if math.isnan(timeout) else f"no answer came within {timeout:g} s"
    if isinstance(cause, OSError) and cause.strerror:
        return f"it cannot be reached ({printable(cause.strerror)})"
    return f"its answer broke off ({printable(str(cause) or type(cause).__name__)})"


def _unreachable(url: str, seen: str) -> LinkError:
    return LinkError(
        "release_unreachable",
        f"Asked {shown(url)}, and {seen}; check the link to the internet and the proxy, or name a mirror.",
        url=shown(url),
    )


def _wrong_size(url: str, seen: str) -> LinkError:
    return LinkError(
        "download_mismatch",
        f"Downloaded {shown(url)}, and got {seen} that the release page announces; run it again, or check the mirror.",
        url=shown(url),
    )


def _refused(url: str | None, seen: str, advice: str) -> RefusedError:
    place = shown(url or "")
    return RefusedError("release_refused", f"Asked {place}, and {seen}; {advice}.", url=place)


def _not_allowed(url: str) -> RefusedError:
    return RefusedError(
        "release_refused",
        f"The release page leads to {shown(url)}, which is not https; nothing is taken from there: check"
        " `firmware_api_url` and `firmware_download_url`.",
        url=shown(url),
    )
