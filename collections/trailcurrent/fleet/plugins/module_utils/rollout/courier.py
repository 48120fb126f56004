"""Brings an image to a module: wakes it, finds it, and speaks the transport that answers."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import typing as t

from ..errors import LinkError
from ..links import espota, http_ota, mdns
from ..links.transfer import Uploaded, parse_port_range
from .model import Module, Options
from .ports import Steps

Wake = collections.abc.Callable[[], collections.abc.Awaitable[None]]

WAKE_PERIOD: t.Final = 5.0  # s between triggers while a module is silent; a busy one ignores them (PROTOCOLS.md, 0x00)
LOOK_AGAIN: t.Final = 10.0  # s of silence at one address before its name is looked up again: DHCP may have moved it
ESPOTA_HEAD_START: t.Final = 5.0  # s of silence before HTTP is tried on a module of unknown transport


class Courier:
    """The courier for real modules."""

    async def deliver(
        self, module: Module, image: bytes, options: Options, *, known_ota: str | None, wake: Wake, steps: Steps
    ) -> tuple[str, Uploaded]:
        """See ``ports.Courier``."""
        await wake()
        delivery = _Delivery(module, image, options, steps)
        async with _repeated(wake, WAKE_PERIOD) as waking:
            delivery.on_ready = waking.cancel
            if known_ota == "http":
                return "http", await delivery.by_http()
            return await delivery.by_espota(or_http=known_ota is None)


@contextlib.asynccontextmanager
async def _repeated(act: Wake, period: float) -> collections.abc.AsyncIterator[asyncio.Task[None]]:
    async def repeat() -> None:
        while True:
            await asyncio.sleep(period)
            with contextlib.suppress(LinkError):  # the next one may get through
                await act()

    task = asyncio.create_task(repeat())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class _Delivery:
    """One image on its way to one module."""

    def __init__(self, module: Module, image: bytes, options: Options, steps: Steps) -> None:
        self._module = module
        self._image = image
        self._options = options
        self._steps = steps
        self._deadline = asyncio.get_running_loop().time() + options.ready_timeout
        self.on_ready: collections.abc.Callable[[], object] = lambda: None

    def _left(self) -> float:
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def _ready(self, host_address: str) -> None:
        self.on_ready()
        self._steps.ready(host_address)

    async def _address(self) -> str:
        return await mdns.find_address(self._module.name, timeout=self._left(), fixed=self._module.address)

    async def by_http(self) -> Uploaded:
        """By HTTP, as soon as its port accepts."""
        return await self._http(await self._address(), self._module.port or http_ota.PORT)

    async def _http(self, address: str, port: int) -> Uploaded:
        return await http_ota.upload(
            self._module.name.text,
            address,
            self._image,
            port=port,
            ready_timeout=max(self._left(), 1.0),
            upload_timeout=self._options.upload_timeout,
            progress=self._steps.progress,
            connected=self._ready,
        )

    async def by_espota(self, *, or_http: bool) -> tuple[str, Uploaded]:
        """By espota, or where that stays silent and `or_http` allows it, by HTTP; which of them answered."""
        async with self._espota_upload() as upload:
            while True:
                address = await self._address()
                patience = ESPOTA_HEAD_START if or_http else LOOK_AGAIN
                if await self._invited(upload, address, min(patience, self._left())):
                    self._ready(upload.host_address)
                    return "espota", await upload.transfer(upload_timeout=self._options.upload_timeout)
                if or_http and await http_ota.accepts(address, http_ota.PORT, timeout=1.0):
                    break
                if not self._left():
                    raise self._silence(address, f"UDP port {self._module.port or espota.PORT}")
        return "http", await self._http(address, http_ota.PORT)

    def _espota_upload(self) -> espota.EspotaUpload:
        return espota.EspotaUpload(
            self._module.name.text,
            self._image,
            port=self._module.port or espota.PORT,
            password=self._module.password,
            host_ip=self._options.host_ip,
            host_ports=parse_port_range(self._options.host_ports),
            progress=self._steps.progress,
            message=self._steps.said,
        )

    @staticmethod
    async def _invited(upload: espota.EspotaUpload, address: str, patience: float) -> bool:
        try:
            await upload.invite(address, patience)
        except LinkError as error:
            if error.code != "no_answer":
                raise
            return False
        return True

    def _silence(self, address: str, where: str) -> LinkError:
        return LinkError(
            "no_answer",
            f"{self._module.name.text} did not answer at {address} ({where}) within"
            f" {self._options.ready_timeout:.0f} s of its trigger; check its power and its Wi-Fi",
            address=address,
        )
