"""What a transport needs of the board that it runs on. `EmulatedModule` is one; a test can bring its own."""

from __future__ import annotations

import typing as t

from .settings import Faults, ModuleSettings


class Board(t.Protocol):
    """The board as espota_device.py and http_device.py see it."""

    settings: ModuleSettings
    faults: Faults

    def spend(self, fault: str) -> bool:
        """Tell whether the counted fault (`lose_invitations`, ...) acts once more, and count it."""
        ...

    def upload_faults(self, image: bytes | bytearray) -> Faults:
        """Return the faults that act on this upload, given what has arrived of its image so far."""
        ...

    def begin_upload(self) -> None:
        """Note that an upload begins: the board ignores triggers, and OTA mode does not end meanwhile."""
        ...

    def end_upload(self) -> None:
        """Note that the upload failed: the board is in OTA mode, with its old image."""
        ...

    def judge(self, image: bytes) -> bool:
        """Tell whether the boot loader would start this image on this chip."""
        ...

    def install(self, image: bytes, restart_after: float) -> None:
        """Store a complete image and restart after some seconds."""
        ...

    def restart(self) -> None:
        """Restart now, with the old image."""
        ...

    def say(self, text: str) -> None:
        """Write a line into the simulator's log."""
        ...

    def report_version(self) -> None:
        """Send 0x04 for the image that runs."""
        ...

    def confirm_discovery(self) -> None:
        """Note that the host has confirmed the discovery."""
        ...
