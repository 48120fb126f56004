"""Finding modules by name: the system's resolver, and real mDNS on loopback."""

from __future__ import annotations

import asyncio
import collections.abc
import secrets
import time

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError, LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import ModuleName
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import mdns
from virtual_rv.advertiser import Advertiser, Service

INTERFACES = ("127.0.0.1",)
NAME = ModuleName.from_mac(secrets.token_bytes(3))  # of this process: mDNS on loopback is heard by all of them
ADVERTISED = ModuleName.from_mac(secrets.token_bytes(3))
BARE, C6 = NAME.network_names
SERVICE = Service("_arduino._tcp.local.", 3232, {"board": "esp32"})


class Resolver:
    """A system resolver with a table of its own, which records what it was asked."""

    def __init__(self, known: dict[str, str] | None = None) -> None:
        self.asked: list[str] = []
        self._known = known or {}

    async def __call__(self, host: str) -> str | None:
        self.asked.append(host)
        return self._known.get(host)


def find(resolver: mdns.Lookup, *, timeout: float = 1.0, fixed: str | None = None) -> str:
    return asyncio.run(mdns.find_address(NAME, timeout=timeout, fixed=fixed, lookup=resolver, interfaces=INTERFACES))


def test_fixed_address_wins_and_nobody_is_asked() -> None:
    resolver = Resolver({BARE: "127.21.5.1"})
    assert find(resolver, fixed="127.21.5.9") == "127.21.5.9"
    assert resolver.asked == []


def test_fixed_host_name_is_asked_of_the_system_alone() -> None:
    resolver = Resolver({"gps": "127.21.5.8", BARE: "127.21.5.1"})
    assert find(resolver, fixed="gps") == "127.21.5.8"
    assert set(resolver.asked) == {"gps"}


@pytest.mark.parametrize("fixed", ["", "a b", "-x", "300.1.1.1", "1.2.3", "::1", "x" * 300, "name\n", "a..b"])
def test_fixed_address_that_is_none_is_refused(fixed: str) -> None:
    with pytest.raises(InputError) as caught:
        find(Resolver(), fixed=fixed)
    assert caught.value.code == "invalid_option"


def test_bare_name_wins_over_local_and_c6_names() -> None:
    resolver = Resolver({f"{BARE}.local": "127.21.5.2", C6: "127.21.5.3", BARE: "127.21.5.1"})
    assert find(resolver) == "127.21.5.1"


def test_c6_board_is_found_under_the_name_that_it_calls_itself() -> None:
    assert find(Resolver({f"{C6}.local": "127.21.5.4"})) == "127.21.5.4"


def test_unknown_name_says_what_to_look_at() -> None:
    resolver = Resolver()
    with pytest.raises(LinkError) as caught:
        find(resolver, timeout=0.1)
    assert caught.value.code == "name_unknown"
    assert NAME.text in str(caught.value) and "`address`" in str(caught.value)
    assert set(resolver.asked) == {BARE, C6, f"{BARE}.local", f"{C6}.local"}


def test_name_that_appears_later_is_found() -> None:
    began = time.monotonic()

    async def late(host: str) -> str | None:
        return "127.21.5.5" if host == BARE and time.monotonic() > began + 0.5 else None

    assert find(late, timeout=10.0) == "127.21.5.5"


def test_resolver_that_hangs_does_not_keep_the_others_from_being_heard() -> None:
    async def hangs(host: str) -> str | None:
        if host == BARE:
            await asyncio.sleep(3_600)
        return "127.21.5.6" if host == C6 else None

    assert find(hangs, timeout=5.0) == "127.21.5.6"


def test_system_resolver_knows_the_hosts_file_and_its_thread_does_not_hold_the_program() -> None:
    async def scenario() -> list[str | None]:
        return [await mdns.system_lookup("localhost"), await mdns.system_lookup(f"{BARE}.invalid")]

    assert asyncio.run(scenario()) == ["127.0.0.1", None]


async def advertised(host: str, act: collections.abc.Callable[[], collections.abc.Awaitable[str | None]]) -> str | None:
    advertiser = Advertiser(INTERFACES)
    await advertiser.start()
    try:
        await advertiser.announce(host, "127.21.5.7", SERVICE)
        return await act()
    finally:
        await advertiser.stop()


@pytest.mark.parametrize("host", ADVERTISED.network_names, ids=["esp32", "esp32c6"])
def test_module_that_only_mdns_knows_is_found(host: str) -> None:
    async def act() -> str:
        return await mdns.find_address(ADVERTISED, timeout=10.0, lookup=Resolver(), interfaces=INTERFACES)

    assert asyncio.run(advertised(host, act)) == "127.21.5.7"


def test_query_asks_for_one_name() -> None:
    async def act() -> str | None:
        return await mdns.query(f"{ADVERTISED.key}.local", timeout=5.0, interfaces=INTERFACES)

    assert asyncio.run(advertised(ADVERTISED.key, act)) == "127.21.5.7"


def test_query_without_an_answer_ends_in_time() -> None:
    assert asyncio.run(mdns.query(f"{BARE}.local", timeout=0.3, interfaces=INTERFACES)) is None


@pytest.mark.parametrize(
    "host", ["", "local", "esp32-7b21a.local", "esp32-TESTID.local", "printer.local", "esp32-7b21a0.x.local"]
)
def test_malformed_name_is_never_asked_for(host: str) -> None:
    with pytest.raises(InputError) as caught:
        asyncio.run(mdns.query(host, timeout=0.3, interfaces=INTERFACES))
    assert caught.value.code == "invalid_hostname"


def test_search_ends_with_its_time_also_when_everything_hangs() -> None:
    async def hangs(_host: str) -> str | None:
        await asyncio.sleep(3_600)
        return None

    began = time.monotonic()
    with pytest.raises(LinkError):
        find(hangs, timeout=0.1)
    assert time.monotonic() - began < 30
