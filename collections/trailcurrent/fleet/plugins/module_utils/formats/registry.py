"""The registry's list of modules, judged entry by entry (PROTOCOLS.md, Names and MongoDB on the Pi)."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import re
import typing as t

from ..errors import InputError
from ..text import printable
from .hostname import ModuleName, parse_hostname

DISPLAY_NAMES: t.Final[dict[str, str]] = {
    "air_quality_module": "Air Quality Sensor",
    "cabinet_door_sensor": "Cabinet/Door Sensor",
    "cabinet_and_door_sensor": "Cabinet/Door Sensor",
    "can_esp_now_gateway": "CAN ESP-NOW Gateway",
    "eight_button_panel": "Eight Button Panel",
    "electric_heater_control": "Electric Heater Control",
    "gnss_module": "GPS Module",
    "mppt_can_gateway": "MPPT CAN Gateway",
    "power_control_module": "Power Control Module",
    "power_distribution_module": "Power Distribution Module",
    "seven_pin_trailer_monitor": "Seven Pin Trailer Monitor",
    "shunt_gateway": "Shunt Gateway",
    "switchback_relay": "Switchback Relay",
    "vehicle_leveler": "Vehicle Leveler",
    "wall_mounted_display": "Wall Mounted Display",
}
TRANSPORTS: t.Final = ("espota", "http", "none")
MAX_TYPE: t.Final = 64  # characters; the longest known type has 25, a folder's name may have 255 bytes
_KINDS: t.Final = (
    (dict, "an object"),
    (list, "a list"),
    (str, "text"),
    (bool, "true or false"),
    ((int, float), "a number"),
    (type(None), "nothing"),
)
_TYPE: t.Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*", re.ASCII)
_ADDRESS: t.Final = re.compile(r"([0-9]{1,9})|0x([0-9a-f]{1,8})", re.ASCII | re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class McuModule:
    """One module of an RV as its registry describes it.

    :param hostname: as written there
    :param name: what its owner calls it; may be empty
    :param fw: the version that others noted, which proves nothing
    :param ota: one of ``TRANSPORTS``; None = not said: espota, until another answers
    :param target: its chip, None = not said
    :param addr: its CAN address, None = not said or not a number
    """

    hostname: str
    type: str
    display_name: str
    name: str
    enabled: bool
    fw: str | None
    ota: str | None
    target: str | None
    addr: int | None

    def as_dict(self) -> dict[str, t.Any]:
        """The same as plain data, fit for JSON."""
        return dataclasses.asdict(self)


Invalid = dict[str, t.Any]


def display_name(module_type: str) -> str:
    """What to call a type to its owner; an unknown one is its words with capitals."""
    return DISPLAY_NAMES.get(module_type) or " ".join(word.capitalize() for word in module_type.split("_"))


def check_type(text: object) -> str:
    """``text`` when it names a module type; ``InputError`` invalid_type otherwise.

    The type becomes a folder's name, so nothing but snake_case passes: no dots, no slashes.
    """
    if isinstance(text, str) and len(text) <= MAX_TYPE and _TYPE.fullmatch(text):
        return text
    shown = repr(printable(text, MAX_TYPE)) if isinstance(text, str) else _kind(text)
    raise InputError(
        "invalid_type",
        f"The module type {shown} cannot be used: a type is snake_case of at most {MAX_TYPE} characters, "
        "such as gnss_module; correct it in the registry.",
    )


def read_modules(
    raw: object, *, types: collections.abc.Sequence[str] | None = None, include_disabled: bool = False
) -> tuple[list[McuModule], list[Invalid]]:
    """The usable modules in the registry's order, and the entries that cannot be used, each with its reason.

    Every entry is judged, whatever is asked for: two entries of one module are both unusable even when one is disabled.

    :param raw: ``mcu_modules`` as the database holds it
    :param types: only modules of these types; None = all
    :param include_disabled: whether disabled modules are among the usable ones
    :returns: modules, and ``{"entry": index, "hostname": text or None, "code": ..., "reason": sentence}`` each
    :raises InputError: registry_invalid when ``raw`` is no list
    """
    if not isinstance(raw, list):
        raise InputError(
            "registry_invalid",
            f"The registry cannot be read: mcu_modules is {_kind(raw)}, not a list; "
            "repair the document main in system_config.",
        )
    twins = _twins(raw)
    modules: list[McuModule] = []
    invalid: list[Invalid] = []
    for index, entry in enumerate(raw):
        try:
            modules.append(_module(index, entry, twins))
        except InputError as error:
            invalid.append({"entry": index, "hostname": _shown(entry), "code": error.code, "reason": str(error)})
    wanted = [module for module in modules if include_disabled or module.enabled]
    return [module for module in wanted if types is None or module.type in types], invalid


def find_entries(raw: object, name: ModuleName) -> list[dict[str, t.Any]]:
    """The entries of ``raw`` that name the module ``name``, in the registry's order."""
    entries = raw if isinstance(raw, list) else []
    return [entry for entry in entries if _name_of(entry) == name]


def _twins(raw: list[object]) -> dict[ModuleName, list[int]]:
    """For each module, the entries that name it."""
    found: dict[ModuleName, list[int]] = collections.defaultdict(list)
    for index, entry in enumerate(raw):
        name = _name_of(entry)
        if name:
            found[name].append(index)
    return found


def _name_of(entry: object) -> ModuleName | None:
    try:
        return parse_hostname(entry.get("hostname")) if isinstance(entry, dict) else None
    except InputError:
        return None


def _module(index: int, entry: object, twins: dict[ModuleName, list[int]]) -> McuModule:
    if not isinstance(entry, dict):
        raise _wrong(index, f"it is {_kind(entry)}, not an object")
    name = parse_hostname(entry.get("hostname"))
    module_type = check_type(entry.get("type"))
    _check_unique(name, twins[name])
    return McuModule(
        hostname=name.text,
        type=module_type,
        display_name=display_name(module_type),
        name=_text(index, entry, "name") or "",
        enabled=_enabled(index, entry),
        fw=_noted(entry.get("fw")),
        ota=_transport(index, entry),
        target=_text(index, entry, "target") or None,
        addr=_address(entry.get("addr")),
    )


def _check_unique(name: ModuleName, entries: list[int]) -> None:
    if len(entries) > 1:
        numbers = ", ".join(map(str, entries[:-1])) + f" and {entries[-1]}"
        raise InputError(
            "duplicate_hostname",
            f"The module {name.text} cannot be used: entries {numbers} of the registry (counted from 0) name "
            "the same last three MAC bytes; remove all but one of them.",
        )


def _enabled(index: int, entry: dict[str, t.Any]) -> bool:
    value = entry.get("enabled")
    if value is None or isinstance(value, bool):
        return value is True
    raise _wrong(index, f"its enabled is {_kind(value)}, not true or false")


def _transport(index: int, entry: dict[str, t.Any]) -> str | None:
    value = _text(index, entry, "ota") or None
    if value is None or value in TRANSPORTS:
        return value
    raise _wrong(index, f"its ota is {printable(value)!r}, not one of {', '.join(TRANSPORTS)}")


def _text(index: int, entry: dict[str, t.Any], key: str) -> str | None:
    value = entry.get(key)
    if value is None or isinstance(value, str):
        return value
    raise _wrong(index, f"its {key} is {_kind(value)}, not text")


def _noted(value: object) -> str | None:
    """A note of others: text when it is text, and never a reason to refuse the module."""
    return printable(value) or None if isinstance(value, str) else None


def _address(value: object) -> int | None:
    """A CAN address as people and JavaScript write it: 3, 3.0, "3", "0x3"; None where it is no such number.

    No reason to refuse the module: only a type that has an image for each address needs one.
    """
    if isinstance(value, str):
        match = _ADDRESS.fullmatch(value.strip())
        return (int(match[1]) if match[1] else int(match[2], 16)) if match else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _kind(value: object) -> str:
    """What a value of the database is, as a person would say it."""
    return next((words for kind, words in _KINDS if isinstance(value, kind)), f"a {type(value).__name__}")


def _shown(entry: object) -> str | None:
    hostname = entry.get("hostname") if isinstance(entry, dict) else None
    return printable(hostname) if isinstance(hostname, str) else None


def _wrong(index: int, seen: str) -> InputError:
    return InputError(
        "invalid_entry",
        f"Entry {index} of the registry (counted from 0) cannot be used: {seen}; correct it in the web app.",
    )
