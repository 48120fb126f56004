"""Who is asked, and who gets to see the token; the requests themselves: tests/integration/test_firmware_fetch.py."""

from __future__ import annotations

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.web import Web, origin, shown

SECURE = "https://api.example.org"


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://api.example.org/repos/o/n", True),
        ("https://API.example.org:443/x", True),
        ("https://api.example.org:8443/x", False),
        ("http://api.example.org/x", False),
        ("https://api.example.org.evil.example/x", False),
        ("https://api.example.org@evil.example/x", False),
        ("https://files.example.org/x", False),
    ],
)
def test_only_the_host_that_was_named_gets_the_token(url: str, seen: bool) -> None:
    headers = Web(SECURE, token="t0k3n").headers(url, {"Accept": "x", "authorization": "Bearer t0k3n"})
    assert ("Authorization" in headers) == seen
    assert ("t0k3n" in str(headers)) == seen
    assert headers["User-Agent"]


@pytest.mark.parametrize(
    ("base", "url", "allowed"),
    [
        (SECURE, "https://elsewhere.example/x", True),
        (SECURE, "http://api.example.org/x", False),
        (SECURE, "file:///etc/passwd", False),
        (SECURE, "ftp://elsewhere.example/x", False),
        (SECURE, "https://", False),
        (SECURE, "https://[::1/x", False),
        (SECURE, "https://host:port/x", False),
        (SECURE, "", False),
        ("http://mirror.example", "http://elsewhere.example/x", True),
        ("http://mirror.example", "https://elsewhere.example/x", True),
    ],
)
def test_nothing_is_taken_over_http_unless_the_user_said_http(base: str, url: str, allowed: bool) -> None:
    assert Web(base).allowed(url) == allowed


@pytest.mark.parametrize(
    "base",
    ["", "api.example.org", "ftp://x", "https://", "https://x:y", "https://me:secret@x", "https://x/?a=b", "file:///x"],
)
def test_a_base_that_is_none_is_said_without_its_password(base: str) -> None:
    with pytest.raises(InputError) as refused:
        Web(base)
    assert (refused.value.code, "secret" in str(refused.value)) == ("invalid_option", False)


@pytest.mark.parametrize("proxy", ["proxy:3128", "socks5://proxy:1080", "http://"])
def test_a_proxy_that_is_none_is_said(proxy: str) -> None:
    with pytest.raises(InputError, match="`firmware_proxy` is no URL"):
        Web(SECURE, proxy=proxy)


def test_a_url_is_shown_without_what_may_be_a_secret() -> None:
    assert shown("https://s3.example/1?X-Amz-Signature=secret#x") == "https://s3.example/1"
    assert origin("HTTPS://Host/x") == ("https", "host", 443)
