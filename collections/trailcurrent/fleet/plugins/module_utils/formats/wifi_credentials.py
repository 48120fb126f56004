"""Wi-Fi credentials for all modules of an RV, as a sequence of CAN frames (PROTOCOLS.md, CAN over MQTT).

    frames = encode(WifiCredentials("Camp", "correct horse"))

Every module on the bus hears them; there is no acknowledgement. What cannot work on a module is refused here: lengths
that no access point takes, and control characters (a zero byte would cut the text off on a board).
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import typing as t
import unicodedata

from ..errors import InputError
from .can_mqtt import ID_WIFI, MAX_DATA, Frame

PACE: t.Final = 0.05  # s between frames (PROTOCOLS.md): a board writes down each one before it hears the next
FORGET_AFTER: t.Final = 5.0  # s of silence after which a module forgets a sequence that is not complete
SSID_BYTES: t.Final = (1, 32)  # IEEE 802.11
PASSWORD_BYTES: t.Final = (8, 63)  # WPA2; or none at all, for an open network

_START: t.Final = 0x01
_SSID: t.Final = 0x02
_PASSWORD: t.Final = 0x03
_END: t.Final = 0x04
_CHUNK: t.Final = MAX_DATA - 2  # bytes of text in a frame, after its kind and index


@dataclasses.dataclass(frozen=True)
class WifiCredentials:
    """A network that modules can join.

    :param ssid: 1 to 32 bytes of UTF-8
    :param password: 8 to 63 bytes of UTF-8, or empty for an open network; in no error and no ``repr``
    :raises InputError: ``wifi_invalid``
    """

    ssid: str
    password: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        low, high = SSID_BYTES
        length = len(_encoded("SSID", self.ssid))
        if not low <= length <= high:
            raise _invalid("SSID", f"it has {length} bytes, and a network's name has {low} to {high}")
        low, high = PASSWORD_BYTES
        length = len(_encoded("password", self.password))
        if length and not low <= length <= high:
            raise _invalid(
                "password", f"it has {length} bytes, and WPA2 takes {low} to {high} (none is an open network)"
            )


def encode(credentials: WifiCredentials) -> tuple[Frame, ...]:
    """The frames, in the order in which they are sent, each of eight bytes as the deployed tool pads them."""
    ssid, password = credentials.ssid.encode(), credentials.password.encode()
    names, words = _chunks(_SSID, ssid), _chunks(_PASSWORD, password)
    start = bytes((_START, len(ssid), len(password), len(names), len(words)))
    end = bytes((_END, functools.reduce(operator.xor, ssid + password, 0)))
    return tuple(Frame(ID_WIFI, data.ljust(MAX_DATA, b"\0")) for data in (start, *names, *words, end))


def _chunks(kind: int, text: bytes) -> list[bytes]:
    return [bytes((kind, at // _CHUNK)) + text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK)]


def _encoded(what: str, text: object) -> bytes:
    if not isinstance(text, str):
        raise _invalid(what, "it is no text")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise _invalid(what, "it holds a line break or another control character")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _invalid(what, "it is not UTF-8 text") from None


def _invalid(what: str, seen: str) -> InputError:
    return InputError(
        "wifi_invalid",
        f"The Wi-Fi {what} cannot work, and was sent to no module: {seen}; "
        "correct it in the inventory or the web app, wherever it comes from",
        part=what.lower(),
    )
