"""What an emulated module is (`ModuleSettings`) and what goes wrong with it (`Faults`), as two tables of named values.

The names are those of the YAML file (config.py). Every fault does nothing by default.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing as t

from .image import CHIPS, make_image

HOSTNAME: t.Final = re.compile(r"esp32-[0-9A-Fa-f]{6}")
ESPOTA_PORT: t.Final = 3232
HTTP_PORT: t.Final = 80
DEFAULT_PARTITION: t.Final = 0x1E0000
"""Bytes of an application partition in the Arduino core's `min_spiffs` table."""
DEFAULT_WINDOW: t.Final = 5744
"""Bytes: the TCP receive window of the ESP32 Arduino core (ESPOTA.md, Transfer)."""
OTA_WINDOW: t.Final = 180.0
"""Seconds that a module waits for an upload (PROTOCOLS.md, http)."""

Settings = t.TypeVar("Settings", "ModuleSettings", "Faults")


@dataclasses.dataclass(frozen=True)
class ModuleSettings:
    """What one emulated module is.

    :raises ValueError: when a value is out of range; the text names it
    """

    hostname: str
    """``esp32-`` and six hexadecimal digits."""
    type: str = "gnss_module"
    address: str = "127.0.0.11"
    """Address of its own, where it serves and from where it connects."""
    ota: str = "espota"
    """``espota`` or ``http``."""
    port: int = 0
    """0 = 3232 for espota, 80 for http."""
    password: str | None = None
    auth: str = "none"
    """``none``, ``md5`` (cores before 3.3.1), ``sha256``, or ``sha256_md5`` (the sketch stored the MD5)."""
    flash_rate: float | None = 120_000
    """Bytes a second; None = an ideal board, without flash time and without its 1 ms polling step."""
    erase_block: int = 4096
    """Bytes erased at once: 4096, or 65536 as newer cores do (a longer pause each 16 sectors)."""
    window: int = DEFAULT_WINDOW
    """Bytes in flight at most."""
    delay: float = 0.0
    """Seconds each way, for TCP and UDP; the round trip is twice this."""
    partition: int = DEFAULT_PARTITION
    """Bytes: a larger image is not accepted."""
    ready_after: float = 0.0
    """Seconds from the trigger to readiness (Wi-Fi join, DHCP); 8 to 20 in the field."""
    boot_time: float = 0.5
    """Seconds from the restart to the version report."""
    ota_window: float = OTA_WINDOW
    image: bytes = b""
    """What it runs at first; empty = an image of version 0.9.0."""
    chip: str = "esp32"
    reports_version: bool = True
    """Whether its firmware sends 0x04 when it boots; old firmware never does."""
    wifi: bool = True
    """Whether it has Wi-Fi credentials; without them it ignores the trigger."""
    configured: bool = True
    """Whether it was set up; only an unconfigured one answers the discovery trigger."""
    stays_on_bus: bool | None = None
    """Whether it hears CAN in OTA mode; None = ESP-IDF boards (http) do, Arduino boards do not."""
    target: str | None = None
    """What the registry says of its chip (`target`); None = nothing."""
    addr: int | None = None
    """Its CAN address, for types with one image per address."""
    canid: int | None = None
    discovery_port: int = HTTP_PORT

    def __post_init__(self) -> None:
        if not self.port:
            object.__setattr__(self, "port", HTTP_PORT if self.ota == "http" else ESPOTA_PORT)
        if not self.image:
            object.__setattr__(self, "image", make_image(version="0.9.0", project=self.type[:31], chip=self.chip))
        self._check()

    def _check(self) -> None:
        if not HOSTNAME.fullmatch(self.hostname):
            raise ValueError(f"hostname {self.hostname!r} is not `esp32-` and six hexadecimal digits")
        _check_choice("ota", self.ota, ("espota", "http"))
        _check_choice("auth", self.auth, ("none", "md5", "sha256", "sha256_md5"))
        _check_choice("chip", self.chip, tuple(CHIPS))
        _check_choice("erase_block", self.erase_block, (4096, 65536))
        if (self.auth == "none") != (self.password is None):
            raise ValueError(f"{self.hostname}: `auth` and `password` need each other")
        if self.window < 536 or self.delay < 0 or (self.flash_rate is not None and self.flash_rate <= 0):
            raise ValueError(f"{self.hostname}: window >= 536, delay >= 0 and flash_rate > 0 are needed")

    @property
    def mac(self) -> bytes:
        """The last three bytes of the Wi-Fi MAC."""
        return bytes.fromhex(self.hostname[-6:])

    @property
    def network_name(self) -> str:
        """What it calls itself on the network (PROTOCOLS.md, Names)."""
        prefix = "esp32c6" if self.chip == "esp32c6" else "esp32"
        return f"{prefix}-{self.hostname[-6:].lower()}"


@dataclasses.dataclass(frozen=True)
class Faults:
    """What goes wrong with one module; each switch does nothing by default.

    `for_version` and `times` limit the faults of an upload and of the boot after it; the faults of waking, inviting and
    connecting happen before the module knows what it will get, so they always act.

    :raises ValueError: when a value is out of range; the text names it
    """

    # waking
    absent: bool = False
    """It hears the trigger and never joins the Wi-Fi."""
    absent_for: float = 0.0
    """Seconds that it needs longer to join."""
    lose_triggers: int = 0
    """The first N triggers are lost."""
    # inviting (espota)
    lose_invitations: int = 0
    """The first N invitations are lost."""
    lose_answers: int = 0
    """The first N of its own datagrams are lost; it does what it answered."""
    answer_from: str | None = None
    """Address from which it answers instead of its own."""
    left_in_auth: bool = False
    """A host that died left it waiting for the answer to its AUTH."""
    refuse_password: bool = False
    """It answers `Authentication Failed` to the right password as well."""
    crash_without_newline: bool = False
    """Core 1.0.x: a datagram without a line end makes it restart."""
    # connecting (espota)
    connects_late: float = 0.0
    """Seconds from its OK to its connection."""
    never_connects: bool = False
    """Client isolation or a firewall: its connection never arrives."""
    connect_from: str | None = None
    """Address from which it connects instead of its own."""
    # transferring
    stall_at: int | None = None
    """Byte after which it takes nothing more."""
    stall_for: float | None = None
    """Seconds of that stall; None = until the host gives up (http: until its power is cycled)."""
    reset_at: int | None = None
    """Byte at which it resets the connection."""
    close_at: int | None = None
    """Byte at which it closes without a word."""
    error_text: str | None = None
    """One of the texts of ESPOTA.md or PROTOCOLS.md (or any other), said where that error arises."""
    error_at: int | None = None
    """Byte at which `error_text` is said instead."""
    no_final_ok: bool = False
    """It stores the image and restarts, and its final answer is lost."""
    late_ok: float = 0.0
    """Seconds that the final answer comes late."""
    hangs_when_cut: bool = False
    """http: it does not notice that a connection ended (the Wi-Fi was gone), and hangs until its power is cycled."""
    # booting
    no_restart: bool = False
    """The sketch does not restart after the update; the next power cycle does."""
    boots: str = "new"
    """``new``, ``old`` (its own self test rejected the image) or ``nothing``."""
    boot_late: float = 0.0
    """Seconds that the boot takes longer."""
    silent_after_boot: bool = False
    """It boots, and sends no version report."""
    reports: str | None = None
    """Version that it reports instead of its own."""
    reports_while_updating: bool = False
    """A report of the old version comes in the middle of the upload."""
    reverts: bool = False
    """The next power cycle brings the old image back."""
    # which uploads
    for_version: str | None = None
    """Only uploads of an image with this version."""
    times: int | None = None
    """Only the first N uploads."""

    def __post_init__(self) -> None:
        _check_choice("boots", self.boots, ("new", "old", "nothing"))


def from_names(kind: type[Settings], values: t.Mapping[str, t.Any], subject: str) -> Settings:
    """Build settings or faults from a mapping with the fields' names, as a YAML file holds them.

    :raises ValueError: when a name is unknown or a value has the wrong type; the text names both and ``subject``
    """
    hints = t.get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, 1)
            raise ValueError(f"{subject}: unknown name {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        _check_type(f"{subject}: {name}", value, hints[name])
    return kind(**values)


def _check_type(subject: str, value: object, hint: t.Any) -> None:
    kinds = t.get_args(hint) or (hint,)
    accepts_int = float in kinds and isinstance(value, int) and not isinstance(value, bool)
    is_flag_for_number = isinstance(value, bool) and bool not in kinds
    if is_flag_for_number or not (accepts_int or isinstance(value, kinds)):
        wanted = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)
        raise ValueError(f"{subject} must be {wanted}, not {value!r}")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")
