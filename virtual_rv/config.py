"""What a virtual RV consists of, from one YAML file::

    can: {interface: udp_multicast, port: 0, hop_limit: 0}  # bus.py; port 0 = a random one
    mdns: false                    # or true, or a list of interface addresses
    defaults: {ready_after: 8, flash_rate: 120000}          # for all modules
    modules:
      - hostname: esp32-8f56d8     # and every other name of settings.py's ModuleSettings
        type: gnss_module
        version: 0.9.0             # of the image that it runs at first
        image_size: 200000
        enabled: true              # in the registry, with `name`; `registry` holds more keys for its entry
        faults: {silent_after_boot: true, for_version: 1.1.0}   # settings.py, Faults

What is not given has a default. Unknown names are refused. Without a file there are eight modules of real types.
"""

from __future__ import annotations

import dataclasses
import pathlib
import random
import socket
import typing as t

import yaml

from .bus import BusSettings
from .image import make_image
from .settings import HTTP_PORT, Faults, ModuleSettings, from_names

DEFAULT_MODULES: t.Final = 8
MAX_MODULES: t.Final = 200
"""Modules of one RV: they share a block of 256 loopback addresses."""
FIRST_HOST: t.Final = 11
DEFAULT_READY_AFTER: t.Final = 2.0
"""Seconds; the field's 8 to 20 would make every demo wait."""
FIRST_VERSION: t.Final = "0.9.0"
IMAGE_SIZE: t.Final = 200_000
"""Bytes of the image that a module runs at first."""
UNPRIVILEGED_HTTP_PORT: t.Final = 8080
ADDRESSES_OF_A_TYPE: t.Final = 8
"""CAN addresses that the default's type with one image per address has."""

Values = dict[str, t.Any]

DEFAULT_TYPES: t.Final[tuple[tuple[str, Values], ...]] = (
    ("gnss_module", {}),
    ("power_control_module", {"ota": "http", "target": "esp32"}),
    ("eight_button_panel", {"addr": 1}),
    ("air_quality_module", {"chip": "esp32c6", "target": "esp32c6"}),
    ("cabinet_and_door_sensor", {}),
    ("wall_mounted_display", {"ota": "http", "chip": "esp32s3", "target": "esp32s3"}),
    ("vehicle_leveler", {}),
    ("switchback_relay", {"auth": "none"}),
)
"""Type and settings of the default's modules; further ones go through it again."""

_MODULE_EXTRAS: t.Final = ("version", "image_size", "enabled", "name", "registry", "faults")
_TOP: t.Final = ("can", "mdns", "defaults", "modules")


class ConfigError(ValueError):
    """The file cannot be used; the text says where and why."""


@dataclasses.dataclass(frozen=True)
class ModuleConfig:
    """One module, its faults, and its entry in the registry."""

    settings: ModuleSettings
    faults: Faults
    entry: Values


@dataclasses.dataclass(frozen=True)
class Config:
    """One virtual RV."""

    modules: tuple[ModuleConfig, ...]
    bus: BusSettings = dataclasses.field(default_factory=BusSettings)
    mdns: tuple[str, ...] = ()
    """Addresses of the interfaces to answer mDNS on; none = no mDNS."""


def default_config(modules: int = DEFAULT_MODULES) -> Config:
    """Return an RV of so many modules.

    :raises ConfigError: when it is not 1 to 200
    """
    return read_config({"modules": default_modules(modules)})


def default_modules(count: int = DEFAULT_MODULES) -> list[Values]:
    """Return the default's modules as the YAML file would hold them, without addresses.

    :raises ConfigError: when ``count`` is not 1 to 200
    """
    if not 1 <= count <= MAX_MODULES:
        raise ConfigError(f"an RV has 1 to {MAX_MODULES} modules, not {count}")
    modules = []
    for number in range(count):
        kind, settings = DEFAULT_TYPES[number % len(DEFAULT_TYPES)]
        turn = number // len(DEFAULT_TYPES)
        module = {"hostname": f"esp32-f1ee{number + 1:02x}", "type": kind, **settings}
        if "addr" in settings:
            module["addr"] = settings["addr"] + turn % ADDRESSES_OF_A_TYPE
        modules.append(module)
    return modules


def load_config(path: pathlib.Path) -> Config:
    """Read a YAML file.

    :raises ConfigError: when it cannot be read or used
    """
    return read_config(load_yaml(path))


def load_yaml(path: pathlib.Path) -> Values:
    """Read a YAML file that holds a mapping, or nothing.

    :raises ConfigError: when it cannot be read or holds something else
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(values or {}, dict):
        raise ConfigError(f"{path} holds no mapping")
    return values or {}


def read_config(values: Values) -> Config:
    """Build a config from the file's values.

    :raises ConfigError: when a name is unknown or a value cannot be used
    """
    _refuse_unknown("the file", values, _TOP)
    raw = values.get("modules", default_modules())
    if not isinstance(raw, list) or not raw or len(raw) > MAX_MODULES:
        raise ConfigError(f"`modules` must be a list of 1 to {MAX_MODULES}")
    block = _free_block(len(raw))
    port = _http_port(f"{block}.{FIRST_HOST}")
    try:
        modules = [
            _read_module({**values.get("defaults", {}), **module}, f"{block}.{FIRST_HOST + number}", port)
            for number, module in enumerate(raw)
        ]
        bus = BusSettings(**values.get("can", {}))
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    _refuse_duplicates(modules)
    return Config(tuple(modules), bus, _interfaces(values.get("mdns", False)))


def read_faults(values: Values, hostnames: t.Iterable[str]) -> dict[str, Faults]:
    """Build the faults of all modules from a mapping by hostname; a module that is not named has none.

    :raises ConfigError: when a module or a fault is unknown
    """
    hostnames = list(hostnames)
    _refuse_unknown("the file", values, hostnames)
    try:
        return {name: from_names(Faults, values.get(name) or {}, name) for name in hostnames}
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _read_module(values: Values, address: str, http_port: int) -> ModuleConfig:
    extras: Values = {name: values.pop(name) for name in _MODULE_EXTRAS if name in values}
    hostname = str(values.get("hostname"))
    if values.get("ota") == "http":
        values.setdefault("port", http_port)
        values.setdefault("discovery_port", http_port)
    values = {"address": address, "ready_after": DEFAULT_READY_AFTER, **values}
    values["image"] = make_image(
        size=int(extras.get("image_size", IMAGE_SIZE)),
        version=str(extras.get("version", FIRST_VERSION)),
        project=str(values.get("type", "gnss_module"))[:31],
        chip=str(values.get("chip", "esp32")),
        seed=int(values.get("addr") or 0),
    )
    settings = from_names(ModuleSettings, values, hostname)
    return ModuleConfig(settings, from_names(Faults, extras.get("faults") or {}, hostname), _entry(settings, extras))


def _entry(settings: ModuleSettings, extras: Values) -> Values:
    """Return the module's entry in the registry, with keys of the web app's own."""
    entry: Values = {
        "hostname": settings.hostname,
        "type": settings.type,
        "name": extras.get("name", f"{settings.type.replace('_', ' ')} {settings.hostname[-2:]}"),
        "enabled": extras.get("enabled", True),
        "channels": [{"number": 1, "label": "spare"}],
    }
    known = {"target": settings.target, "addr": settings.addr, "canid": settings.canid}
    entry |= {name: value for name, value in known.items() if value is not None}
    if settings.ota != "espota":
        entry["ota"] = settings.ota
    return entry | dict(extras.get("registry") or {})


def _refuse_unknown(subject: str, values: t.Iterable[str], known: t.Iterable[str]) -> None:
    unknown = [str(name) for name in values if name not in set(known)]
    if unknown:
        raise ConfigError(f"{subject}: unknown name {', '.join(unknown)}; known are {', '.join(known)}")


def _refuse_duplicates(modules: list[ModuleConfig]) -> None:
    seen: set[tuple[str, object]] = set()
    for module in modules:
        for mark in (("hostname", module.settings.mac), ("address", (module.settings.address, module.settings.port))):
            if mark in seen:
                raise ConfigError(f"{module.settings.hostname}: another module has the same {mark[0]}")
            seen.add(mark)


def _interfaces(value: bool | list[str]) -> tuple[str, ...]:
    if isinstance(value, bool):
        return ("127.0.0.1",) if value else ()
    return tuple(value)


def _free_block(modules: int) -> str:
    """Choose a block of loopback addresses at random, one that no other virtual RV uses."""
    dice = random.SystemRandom()
    for _ in range(100):
        block = f"127.{dice.randrange(64, 127)}.{dice.randrange(256)}"
        if all(_can_bind(f"{block}.{FIRST_HOST + number}", 3232) for number in (0, modules - 1)):
            return block
    raise ConfigError("no free block of loopback addresses: the virtual RV needs Linux and 127.64.0.0/10")


def _http_port(address: str) -> int:
    """Return 80 where this user may listen on it."""
    return HTTP_PORT if _can_bind(address, HTTP_PORT, socket.SOCK_STREAM) else UNPRIVILEGED_HTTP_PORT


def _can_bind(address: str, port: int, kind: int = socket.SOCK_DGRAM) -> bool:
    with socket.socket(socket.AF_INET, kind) as sock:
        try:
            sock.bind((address, port))
        except OSError:
            return False
        return True
