"""Announces modules by mDNS (zeroconf), one responder for all of them."""

from __future__ import annotations

import dataclasses
import socket
import typing as t

from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf


@dataclasses.dataclass(frozen=True)
class Service:
    """What a module announces: kind (``_arduino._tcp.local.``), port, and texts; a text of None is left out."""

    kind: str
    port: int
    texts: t.Mapping[str, str | int | None]


class Advertiser:
    """The responder, from `start` to `stop`.

    :param interfaces: addresses of the interfaces to answer on; loopback by default, so that nothing leaves the host
    """

    def __init__(self, interfaces: t.Sequence[str] = ("127.0.0.1",)) -> None:
        self._interfaces = list(interfaces)
        self._zeroconf: AsyncZeroconf | None = None
        self._announced: dict[str, AsyncServiceInfo] = {}

    async def start(self) -> None:
        """Begin to answer.

        :raises OSError: when an interface is not there
        """
        self._zeroconf = AsyncZeroconf(interfaces=self._interfaces, ip_version=IPVersion.V4Only)

    async def stop(self) -> None:
        """Withdraw everything and close."""
        if self._zeroconf:
            await self._zeroconf.async_close()
        self._zeroconf = None
        self._announced.clear()

    async def announce(self, host: str, address: str, service: Service) -> None:
        """Let ``<host>.local`` have this address, and announce its service."""
        await self.withdraw(host)
        if self._zeroconf is None:
            return
        info = AsyncServiceInfo(
            service.kind,
            f"{host}.{service.kind}",
            server=f"{host}.local.",
            addresses=[socket.inet_aton(address)],
            port=service.port,
            properties={name: str(text) for name, text in service.texts.items() if text is not None},
        )
        self._announced[host] = info
        await self._zeroconf.async_register_service(info, cooperating_responders=True)

    async def withdraw(self, host: str) -> None:
        """Announce ``host`` no more."""
        info = self._announced.pop(host, None)
        if info and self._zeroconf:
            await self._zeroconf.async_unregister_service(info)
