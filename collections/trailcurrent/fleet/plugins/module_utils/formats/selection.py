"""What a rollout is for: the registry's modules with the inventory's word on them, and the files that these need.

Sources: DESIGN.md, Playbook variables (``mcu_firmware_modules`` wins over the registry); PROTOCOLS.md, Names (one image
for each CAN address).
"""

from __future__ import annotations

import collections.abc
import re
import typing as t

from ..errors import InputError
from ..text import printable
from .hostname import ModuleName, parse_hostname
from .registry import TRANSPORTS, check_type, display_name

IMAGE_NAME: t.Final = "firmware.bin"
OVERRIDES: t.Final = frozenset({"type", "name", "enabled", "ota", "target", "addr", "address", "port", "password"})
"""What ``mcu_firmware_modules`` may say of a module."""
_ADDRESSED: t.Final = re.compile(r"addr([0-9]+)")

Module = dict[str, t.Any]
Words = collections.abc.Mapping[str, t.Any]


def merge_modules(registry: collections.abc.Sequence[Words], overrides: Words | None) -> list[Module]:
    """The registry's modules with what the inventory says of them, then those that the inventory alone names.

    :param registry: as ``mcu_modules_facts`` returns it
    :param overrides: by hostname, in either case; keys are those of ``OVERRIDES``
    :raises InputError: ``invalid_hostname``, ``duplicate_hostname``, ``invalid_type``, ``invalid_option``
    """
    words = _by_name(overrides or {})
    merged = [{**module, **words.pop(parse_hostname(module["hostname"]), {})} for module in registry]
    return [*map(_finished, merged), *(_new_module(name, said) for name, said in words.items())]


def needed_files(modules: collections.abc.Iterable[Words], present: collections.abc.Collection[str]) -> list[str]:
    """Those files of ``present`` that a rollout over ``modules`` reads, in order.

    A type with an image for each address and a module whose address has none needs all of the type's: the rollout
    then says which addresses there are.

    :param present: paths below the firmware folder, ``<type>/firmware.bin`` and ``<type>/addr<N>/firmware.bin``
    """
    wanted: set[str] = set()
    for module in modules:
        if module.get("enabled", True) and module.get("ota") != "none":
            wanted |= _files_of(check_type(module.get("type")), module.get("addr"), present)
    return sorted(wanted)


def is_image_path(path: str) -> bool:
    """Whether a path below the firmware folder is one that a module may be given."""
    parts = path.split("/")
    if parts[-1] != IMAGE_NAME or len(parts) not in (2, 3):
        return False
    if len(parts) == 3 and not _ADDRESSED.fullmatch(parts[1]):
        return False
    try:
        check_type(parts[0])
    except InputError:
        return False
    return True


def image_of(subject: str, module_type: str, addr: int | None, present: collections.abc.Collection[str]) -> str | None:
    """That file of ``present`` which a module gets; None where its type has no firmware.

    Where the type has images for single addresses, those win over ``firmware.bin``: the same image on two such modules
    would make their CAN identifiers collide.

    :param subject: the module, for the error
    :raises InputError: ``address_unknown``, ``invalid_type``
    """
    addressed = _addressed(check_type(module_type), present)
    if not addressed:
        plain = f"{module_type}/{IMAGE_NAME}"
        return plain if plain in present else None
    exact = f"{module_type}/addr{addr}/{IMAGE_NAME}"
    if exact in addressed:
        return exact
    folders = ", ".join(path.split("/")[1] for path in sorted(addressed))
    seen = "no CAN address" if addr is None else f"the CAN address {addr}"
    raise InputError(
        "address_unknown",
        f"{subject} has {seen} in the registry, and {module_type} has images for {folders} only; set its `addr`, or"
        " build that image",
    )


def _addressed(module_type: str, present: collections.abc.Collection[str]) -> set[str]:
    return {path for path in present if path.startswith(f"{module_type}/") and path.count("/") == 2}


def _files_of(module_type: str, addr: int | None, present: collections.abc.Collection[str]) -> set[str]:
    try:
        image = image_of("", module_type, addr, present)
    except InputError:
        return _addressed(module_type, present)
    return {image} if image else set()


def _by_name(overrides: Words) -> dict[ModuleName, Module]:
    words: dict[ModuleName, Module] = {}
    for hostname, said in overrides.items():
        name = parse_hostname(hostname)
        if name in words:
            raise InputError(
                "duplicate_hostname",
                f"`mcu_firmware_modules` names {name.text} twice, by the same last three MAC bytes; remove one of them",
            )
        words[name] = _checked(name, said)
    return words


def _checked(name: ModuleName, said: object) -> Module:
    if not isinstance(said, collections.abc.Mapping):
        raise _wrong(name, f"is a {type(said).__name__}, not a dictionary such as {{address: 192.168.1.20}}")
    unknown = sorted(str(key) for key in said if key not in OVERRIDES)
    if unknown:
        raise _wrong(name, f"has {printable(unknown[0])!r}, which is none of {', '.join(sorted(OVERRIDES))}")
    if said.get("ota") not in (None, *TRANSPORTS):
        raise _wrong(name, f"has ota {printable(str(said['ota']))!r}, which is none of {', '.join(TRANSPORTS)}")
    if "type" in said:
        check_type(said["type"])
    return {str(key): value for key, value in said.items()}


def _new_module(name: ModuleName, said: Module) -> Module:
    if "type" not in said:
        raise _wrong(
            name, "has no type, and the registry does not know the module; give its `type`, gnss_module for instance"
        )
    return _finished({"hostname": name.text, "name": "", "enabled": True, **said})


def _finished(module: Words) -> Module:
    """The module as others read it; what is None was not said."""
    said = {key: value for key, value in module.items() if value is not None}
    return {**said, "display_name": display_name(module["type"])}


def _wrong(name: ModuleName, seen: str) -> InputError:
    return InputError("invalid_option", f"The entry {name.text} of `mcu_firmware_modules` cannot be used: it {seen}.")
