"""The name of a module (an ESP32 board): ``esp32-`` and the last three bytes of its MAC (PROTOCOLS.md, Names)."""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import InputError
from ..text import printable

PREFIX: t.Final = "esp32-"
C6_PREFIX: t.Final = "esp32c6-"  # what a C6 board calls itself on the network, and never in the registry
MAC_LENGTH: t.Final = 3  # bytes of the Wi-Fi MAC in a name
_DIGITS: t.Final = 2 * MAC_LENGTH
_HEX: t.Final = frozenset("0123456789abcdefABCDEF")
_SHOWN: t.Final = 40  # characters of a wrong name in an error; a right one has 12


@dataclasses.dataclass(frozen=True)
class ModuleName:
    """One module. Two names with the same MAC bytes are the same module, whatever their case."""

    mac: bytes
    text: str = dataclasses.field(compare=False)

    @classmethod
    def from_mac(cls, mac: bytes) -> ModuleName:
        """The module with these last three MAC bytes; ``InputError`` invalid_hostname for another number of bytes."""
        if len(mac) != MAC_LENGTH:
            raise InputError(
                "invalid_hostname",
                f"A module's name cannot be made from {len(mac)} MAC bytes; give the last {MAC_LENGTH}.",
            )
        return cls(mac=bytes(mac), text=PREFIX + mac.hex())

    @property
    def key(self) -> str:
        """The one spelling of this module: ``esp32-8f56d8``, lower case."""
        return PREFIX + self.mac.hex()

    @property
    def network_names(self) -> tuple[str, str]:
        """What the module may call itself on the network, the likelier name first."""
        return self.key, C6_PREFIX + self.mac.hex()


def parse_hostname(text: object) -> ModuleName:
    """The module that ``text`` names; ``InputError`` invalid_hostname says which rule it broke."""
    if not isinstance(text, str):
        raise _broken(type(text).__name__, "it is not text")
    rule = _broken_rule(text)
    if rule:
        raise _broken(text, rule)
    return ModuleName(mac=bytes.fromhex(text[len(PREFIX) :]), text=text)


def _broken_rule(text: str) -> str | None:
    if not text:
        return "it is empty"
    if text != text.strip():
        return "it has blanks around it"
    if text.startswith(C6_PREFIX):
        return f"a C6 board too is registered as {PREFIX}, not as {C6_PREFIX}"
    if not text.startswith(PREFIX):
        return f"it does not begin with {PREFIX} in lower case"
    digits = text[len(PREFIX) :]
    if len(digits) != _DIGITS:
        return f"{len(digits)} characters follow {PREFIX}, not {_DIGITS}"
    wrong = next((digit for digit in digits if digit not in _HEX), None)
    return None if wrong is None else f"{printable(wrong)!r} is not a hexadecimal digit"


def _broken(text: str, rule: str) -> InputError:
    shown = printable(text, _SHOWN)
    return InputError(
        "invalid_hostname",
        f"The hostname {shown!r} cannot be used: {rule}; "
        f"give {PREFIX} and the last {_DIGITS} hexadecimal digits of the module's MAC, such as esp32-8F56D8.",
        hostname=shown,
        rule=rule,
    )
