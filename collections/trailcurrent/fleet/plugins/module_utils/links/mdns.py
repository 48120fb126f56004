"""Finds a module's address by its name (PROTOCOLS.md, Reaching a module).

A fixed address wins. Else, again and again until the time is over: the system's resolver with the bare name and with
`.local`, then an mDNS query of our own, since a Pi may have no nss-mdns. All are asked at once; the first of this order
that knows an address is believed.
"""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import functools
import re
import socket
import threading
import typing as t

from ..errors import InputError, LinkError
from ..formats.hostname import C6_PREFIX, PREFIX, ModuleName, parse_hostname
from ..text import printable

try:
    import zeroconf
    import zeroconf.asyncio
except ImportError as missing:
    ZEROCONF_MISSING: ImportError | None = missing
else:
    ZEROCONF_MISSING = None

DOMAIN: t.Final = ".local"
FIRST_ANSWER_LIMIT: t.Final = 1.0  # s that an earlier way, and a resolver that hangs, has when a later one knows
QUERY_LIMIT: t.Final = 3.0  # s for one mDNS query, repeated within it after 1 s and 3 s (RFC 6762, 5.2)
ASK_PERIOD: t.Final = 0.5  # s from one question to the next at least: a resolver that says no at once is not flooded

Lookup = collections.abc.Callable[[str], collections.abc.Awaitable[str | None]]
"""Asks for the IPv4 address of a host; None when it is not known."""

Ask = collections.abc.Callable[[], collections.abc.Awaitable[str | None]]

_HOST: t.Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}|\.(?=[A-Za-z0-9]))*")


async def find_address(
    name: ModuleName,
    *,
    timeout: float,
    fixed: str | None = None,
    lookup: Lookup | None = None,
    interfaces: collections.abc.Sequence[str] | None = None,
) -> str:
    """The module's IPv4 address.

    :param timeout: s to go on asking; every way is asked once at least
    :param fixed: an address, or a host name for the system's resolver alone
    :param lookup: the system's resolver
    :param interfaces: local addresses to send mDNS queries from; None = all
    :raises LinkError: ``name_unknown``
    :raises InputError: ``invalid_option``: ``fixed`` is neither an address nor a host name
    """
    if fixed is not None and _is_ipv4(_checked_host(fixed, name)):
        return fixed
    ask = lookup or system_lookup
    bare = (fixed,) if fixed is not None else name.network_names
    hosts = bare if fixed is not None else (*bare, *(host + DOMAIN for host in bare))
    asks: list[Ask] = [functools.partial(ask, host) for host in hosts]
    if fixed is None:
        asks.append(functools.partial(_query, tuple(host + DOMAIN for host in bare), QUERY_LIMIT, interfaces))
    address = await _search(asks, timeout)
    if address is None:
        raise LinkError(
            "name_unknown",
            f"Looked for the address of {fixed or name.text} for {timeout:.0f} s, and neither the system's resolver"
            f"{'' if fixed else ' nor mDNS'} knows it; check that the module has power and has joined the Wi-Fi,"
            " or give its `address`.",
            asked=list(bare),
        )
    return address


async def query(
    host: str,
    *,
    timeout: float,
    interfaces: collections.abc.Sequence[str] | None = None,
) -> str | None:
    """Ask by mDNS for the IPv4 address of a module's ``host`` name, such as ``esp32-8f56d8.local``.

    :param timeout: s
    :param interfaces: local addresses to send the query from; None = all
    :raises InputError: ``invalid_hostname``: not the network name of a module
    """
    bare = host.removesuffix(".").removesuffix(DOMAIN)
    parse_hostname(PREFIX + bare.removeprefix(C6_PREFIX) if bare.startswith(C6_PREFIX) else bare)
    return await _query((bare + DOMAIN,), timeout, interfaces)


async def system_lookup(host: str) -> str | None:
    """Ask the system's resolver, in a thread that nobody waits for: it can hang for longer than we have."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[str | None] = loop.create_future()

    def tell(address: str | None) -> None:
        if not found.done():
            found.set_result(address)

    def ask() -> None:
        address = _getaddrinfo(host)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, address)

    threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    return await found


def _getaddrinfo(host: str) -> str | None:
    try:
        answers = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    return str(answers[0][4][0]) if answers else None


async def _query(
    hosts: collections.abc.Iterable[str], seconds: float, interfaces: collections.abc.Sequence[str] | None
) -> str | None:
    """The first address that any of ``hosts`` answers with."""
    if ZEROCONF_MISSING is not None:
        return None
    where = zeroconf.InterfaceChoice.All if interfaces is None else list(interfaces)
    try:
        responder = zeroconf.asyncio.AsyncZeroconf(interfaces=where, ip_version=zeroconf.IPVersion.V4Only)
    except OSError:  # no network for the moment
        return None
    try:
        tasks = [asyncio.create_task(_resolve(responder.zeroconf, host, seconds)) for host in hosts]
        try:
            return await _first(tasks)
        finally:
            await _cancelled(tasks)
    finally:
        await responder.async_close()


async def _resolve(responder: zeroconf.Zeroconf, host: str, seconds: float) -> str | None:
    resolver = zeroconf.AddressResolverIPv4(f"{host}.")  # type: ignore[attr-defined]  # public, not in __all__
    with contextlib.suppress(OSError, zeroconf.Error):
        if await resolver.async_request(responder, seconds * 1000):
            addresses = resolver.parsed_addresses(zeroconf.IPVersion.V4Only)
            return addresses[0] if addresses else None
    return None


async def _first(tasks: collections.abc.Iterable[asyncio.Task[str | None]]) -> str | None:
    for done in asyncio.as_completed(list(tasks)):
        address = await done
        if address is not None:
            return address
    return None


async def _cancelled(tasks: collections.abc.Iterable[asyncio.Task[str | None]]) -> None:
    waiting = list(tasks)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


class _Way:
    """One way to ask, again and again until it knows."""

    def __init__(self, ask: Ask) -> None:
        self.asked_once = asyncio.Event()
        self.task = asyncio.create_task(self._repeat(ask))

    async def _repeat(self, ask: Ask) -> str:
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            address = await ask()
            self.asked_once.set()
            if address is not None:
                return address
            await asyncio.sleep(max(0.0, began + ASK_PERIOD - clock()))


async def _search(asks: collections.abc.Iterable[Ask], seconds: float) -> str | None:
    """Ask in every way at once; an earlier way has a moment to be heard before a later one is believed."""
    ways = [_Way(ask) for ask in asks]
    try:
        await asyncio.wait([way.task for way in ways], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        known = next((number for number, way in enumerate(ways) if way.task.done()), len(ways))
        await _all_asked_once(ways[:known])
        return next((way.task.result() for way in ways if way.task.done()), None)
    finally:
        await _cancelled([way.task for way in ways])


async def _all_asked_once(ways: collections.abc.Iterable[_Way]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_ANSWER_LIMIT):
            for way in ways:
                await way.asked_once.wait()


def _is_ipv4(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return False
    return True


def _checked_host(text: str, name: ModuleName) -> str:
    if _HOST.fullmatch(text) is None or (text.replace(".", "").isdigit() and not _is_ipv4(text)):
        raise InputError(
            "invalid_option",
            f"Read the address of {name.text} as {printable(text)!r}, which is neither an IPv4 address nor a host name;"
            " write it like 192.168.4.20.",
        )
    return text
