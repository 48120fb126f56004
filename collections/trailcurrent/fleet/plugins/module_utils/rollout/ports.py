"""What the engine needs from the world, so that it can be run against any."""

from __future__ import annotations

import collections.abc
import typing as t

from ..formats.hostname import ModuleName
from ..links.transfer import Uploaded
from .model import Module, Options, Reported


class Bus(t.Protocol):
    """The RV's CAN bus, as far as a rollout uses it."""

    async def check(self) -> None:
        """Raise ``bridge_down`` or ``bus_off`` where the way to the modules is known to be broken."""

    async def trigger(self, name: ModuleName) -> None:
        """Ask a module to join Wi-Fi and serve OTA; returns when the broker has it."""

    def last_reports(self) -> collections.abc.Mapping[str, Reported]:
        """The last version of each module that the bridge keeps, by ``ModuleName.key``."""

    def kept_at(self, name: ModuleName) -> float | None:
        """The bridge's own time of the last report that it told us of; by it, later runs know an old one again."""

    def mark(self) -> int:
        """Now, in the bus's own counting of reports: no clock that can be set."""

    async def report(self, name: ModuleName, since: int) -> Reported:
        """What ``name`` reported after the mark ``since``, as soon as it has."""

    async def condition(self, index: int) -> object:
        """The value for that precondition, no older than its ``max_age``; None when none comes in that time."""


class Courier(t.Protocol):
    """Brings an image to a woken module."""

    async def deliver(
        self,
        module: Module,
        image: bytes,
        options: Options,
        *,
        known_ota: str | None,
        wake: collections.abc.Callable[[], collections.abc.Awaitable[None]],
        steps: Steps,
    ) -> tuple[str, Uploaded]:
        """Wake, observe readiness, upload.

        :returns: the transport that answered, and what was uploaded
        :raises FleetError: how it failed, by the families of ``errors``
        """


class Steps(t.Protocol):
    """Told what happens while an image is delivered."""

    def ready(self, host_address: str) -> None:
        """The module answered; it was told to connect to ``host_address``."""

    def progress(self, sent: int, total: int) -> None:
        """Bytes acknowledged so far."""

    def said(self, text: str) -> None:
        """Something worth a line: the device's own words, a stranger at the port."""
