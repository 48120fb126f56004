"""One CAN frame as one MQTT message, both directions (PROTOCOLS.md, CAN over MQTT).

Each byte travels as a list of its eight bits. Both ways go through tables of all 256 bytes: the bus carries up to
9,000 frames a second, and a Pi's core is slow. For the same reason a message that is written as everybody writes
it (these keys in this order, a standard data frame) is read without JSON, in half the time; every other message is
read as JSON, and a test holds that both ways agree. What the page leaves open is decided here:

- ``can/inbound`` has no key for extended or remote frames. Ours carry ``extd: 1`` or ``rtr: 1`` besides the four
  keys, only then, so that nothing is lost and every other message is byte for byte what readers know.
- The remote frame's ``data_length_code`` is the number of bytes it asks for; its ``data`` is empty.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import math
import re
import typing as t

from ..errors import InputError
from ..text import printable
from .hostname import MAC_LENGTH, ModuleName

TOPIC_OUTBOUND: t.Final = "can/outbound"
TOPIC_INBOUND: t.Final = "can/inbound"
TOPIC_STATUS: t.Final = "can/bridge/status"
TOPIC_VERSIONS: t.Final = "can/bridge/versions"

ID_OTA_TRIGGER: t.Final = 0x00
ID_WIFI: t.Final = 0x01
ID_DISCOVERY: t.Final = 0x02
ID_DISCOVERY_RESET: t.Final = 0x03  # never sent unasked: it makes later generations erase all their settings
ID_VERSION: t.Final = 0x04

MAX_DATA: t.Final = 8  # bytes in a classic CAN frame
MAX_STANDARD: t.Final = 0x7FF  # 11 bits
MAX_EXTENDED: t.Final = 0x1FFFFFFF  # 29 bits
MAX_PAYLOAD: t.Final = 16_384  # bytes; a full frame takes 330, 2,000 when somebody indents it
_TRIGGER_LENGTH: t.Final = 8  # bytes; what the deployed tools send, a receiver needs three
_VERSION_LENGTH: t.Final = MAC_LENGTH + 3
_SHOWN: t.Final = 40  # characters of a wrong value in an error

_OUTBOUND_KEYS: t.Final = frozenset(("identifier", "data_length_code", "data", "extd", "rtr", "ss", "self"))
_INBOUND_KEYS: t.Final = frozenset(("identifier", "data_length_code", "data", "timestamp"))
_IDENTIFIER: t.Final = re.compile(r"\s*(?:0[xX])?([0-9a-fA-F]{1,16})\s*", re.ASCII)

_BYTES: t.Final = [tuple(value >> place & 1 for place in range(7, -1, -1)) for value in range(256)]
_BITS_OF: t.Final = tuple(str(list(bits)) for bits in _BYTES)
_BYTE_OF: t.Final = {bits: value for value, bits in enumerate(_BYTES)}  # True and False are found as 1 and 0
_byte_of: t.Final = _BYTE_OF.__getitem__

_BYTE_OF_TEXT: t.Final = {text.replace(" ", "").encode() + b",": value for value, text in enumerate(_BITS_OF)}
_STRIDE: t.Final = len("[0,0,0,0,0,0,0,0],")
_USUAL_START: t.Final = (  # an identifier of 11 bits, and room for some more than eight lists of bits
    rb'\{"identifier": ?"0x([0-7]?[0-9a-fA-F]{1,2})", ?"data_length_code": ?([0-8]), ?"data": ?\[([][01, ]{0,300})\], ?'
)
_USUAL_OUTBOUND: t.Final = re.compile(
    _USUAL_START + rb", ?".join(rb'"%b": ?(?:0|false)' % key for key in (b"extd", b"rtr", b"ss", b"self")) + rb"\}"
)
_USUAL_INBOUND: t.Final = re.compile(_USUAL_START + rb'"timestamp": ?((?:0|[1-9][0-9]{0,9})\.[0-9]{1,20})\}')


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One classic CAN frame.

    :param identifier: 0 to 0x7FF, or to 0x1FFFFFFF when ``extended``
    :param data: at most 8 bytes, none in a remote frame
    :param timestamp: seconds; when the bus carried it, 0.0 when it has not yet
    :param length: the number of bytes that a remote frame asks for, 0 to 8; None in every other frame
    """

    identifier: int
    data: bytes = b""
    timestamp: float = 0.0
    extended: bool = False
    remote: bool = False
    single_shot: bool = False
    self_reception: bool = False
    length: int | None = None

    @property
    def data_length_code(self) -> int:
        """0 to 8: the length of the data, or of the data that a remote frame asks for."""
        return (self.length or 0) if self.remote else len(self.data)


@dataclasses.dataclass(frozen=True)
class VersionReport:
    """What a module says it runs, each part of the version 0 to 255."""

    name: ModuleName
    version: tuple[int, int, int]


def encode_outbound(frame: Frame) -> str:
    """The message on ``can/outbound`` that sends ``frame``; ``InputError`` invalid_frame when CAN cannot carry it."""
    _check(frame)
    return (
        f'{{"identifier": "{frame.identifier:#x}", "data_length_code": {frame.data_length_code}, '
        f'"data": [{_bits(frame)}], "extd": {frame.extended:d}, "rtr": {frame.remote:d}, '
        f'"ss": {frame.single_shot:d}, "self": {frame.self_reception:d}}}'
    )


def encode_inbound(frame: Frame) -> str:
    """The message on ``can/inbound`` that tells of ``frame``; ``InputError`` invalid_frame when CAN cannot carry it."""
    _check(frame)
    kind = ', "extd": 1' if frame.extended else ""
    if frame.remote:
        kind += ', "rtr": 1'
    return (
        f'{{"identifier": "0x{frame.identifier:03x}", "data_length_code": {frame.data_length_code}, '
        f'"data": [{_bits(frame)}], "timestamp": {float(frame.timestamp)!r}{kind}}}'
    )


def decode_outbound(payload: bytes | str) -> Frame:
    """The frame that a message on ``can/outbound`` asks to send; ``InputError`` invalid_frame says what is malformed.

    Accepts what senders in the field write: booleans for 0 and 1, and lists beyond ``data_length_code``.
    """
    usual = _USUAL_OUTBOUND.fullmatch(payload) if isinstance(payload, bytes) else None
    if usual and (data := _usual_data(usual)) is not None:
        return Frame(int(usual[1], 16), data)
    message = _message(payload, _OUTBOUND_KEYS)
    extended = _flag(message, "extd")
    remote = _flag(message, "rtr")
    length = _length(message)
    return Frame(
        identifier=_identifier(message, extended=extended),
        data=b"" if remote else _data(message, length),
        extended=extended,
        remote=remote,
        single_shot=_flag(message, "ss"),
        self_reception=_flag(message, "self"),
        length=length if remote else None,
    )


def decode_inbound(payload: bytes | str) -> Frame:
    """The frame that a message on ``can/inbound`` tells of; ``InputError`` invalid_frame says what is malformed.

    Without a key ``extd`` an identifier over 0x7FF is an extended one: the old bridge says no more.
    """
    usual = _USUAL_INBOUND.fullmatch(payload) if isinstance(payload, bytes) else None
    if usual and (data := _usual_data(usual)) is not None:
        return Frame(int(usual[1], 16), data, float(usual[4]))
    message = _message(payload, _INBOUND_KEYS)
    identifier = _identifier(message, extended=True)
    remote = "rtr" in message and _flag(message, "rtr")
    length = _length(message)
    return Frame(
        identifier=identifier,
        data=b"" if remote else _data(message, length),
        timestamp=_timestamp(message),
        extended=identifier > MAX_STANDARD or ("extd" in message and _flag(message, "extd")),
        remote=remote,
        length=length if remote else None,
    )


def ota_trigger(name: ModuleName) -> Frame:
    """The frame that wakes the module ``name`` for an update, padded as the deployed tools pad it."""
    return Frame(ID_OTA_TRIGGER, name.mac.ljust(_TRIGGER_LENGTH, b"\0"))


def version_report(frame: Frame) -> VersionReport | None:
    """What the frame reports, or None when it is no version report."""
    if frame.identifier != ID_VERSION or frame.extended or len(frame.data) < _VERSION_LENGTH:
        return None
    major, minor, patch = frame.data[MAC_LENGTH:_VERSION_LENGTH]
    return VersionReport(ModuleName.from_mac(frame.data[:MAC_LENGTH]), (major, minor, patch))


def _bits(frame: Frame) -> str:
    return ", ".join([_BITS_OF[byte] for byte in frame.data])


def _check(frame: Frame) -> None:
    limit = MAX_EXTENDED if frame.extended else MAX_STANDARD
    if not 0 <= frame.identifier <= limit:
        raise _malformed(f"the identifier {frame.identifier:#x} is not in 0x0 to {limit:#x}")
    if not 0 <= frame.data_length_code <= MAX_DATA:
        raise _malformed(f"its length of {frame.data_length_code} bytes is not in 0 to {MAX_DATA}")
    if frame.remote and frame.data:
        raise _malformed("a remote frame carries no data")
    if not math.isfinite(frame.timestamp):
        raise _malformed(f"its timestamp is {frame.timestamp}")


def _usual_data(usual: re.Match[bytes]) -> bytes | None:
    """The data of a message that is written as usual; None when it is not, and JSON has to judge it."""
    lists = usual[3].replace(b" ", b"") + b","
    if lists == b",":
        return b"" if usual[2] == b"0" else None
    try:
        data = bytes([_BYTE_OF_TEXT[lists[at : at + _STRIDE]] for at in range(0, len(lists), _STRIDE)])
    except KeyError:
        return None
    length = int(usual[2])
    return data[:length] if len(data) >= length else None


def _message(payload: bytes | str, required: collections.abc.Set[str]) -> dict[str, t.Any]:
    if len(payload) > MAX_PAYLOAD:
        raise _malformed(f"it has {len(payload)} bytes, and no frame needs more than {MAX_PAYLOAD}")
    try:
        message = json.loads(payload if isinstance(payload, str) else payload.decode())
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of 5,000 digits; a thousand brackets
        raise _malformed(f"it is not JSON: {printable(str(error), _SHOWN)}") from None
    if not isinstance(message, dict):
        raise _malformed(f"it is {_shown(message)}, not a JSON object")
    if not required <= message.keys():
        raise _malformed(f"it lacks {', '.join(sorted(required - message.keys()))}")
    return message


def _identifier(message: dict[str, t.Any], *, extended: bool) -> int:
    text = message["identifier"]
    match = _IDENTIFIER.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise _malformed(f"its identifier is {_shown(text)}, not a hexadecimal string such as 0x1a")
    identifier = int(match[1], 16)
    limit = MAX_EXTENDED if extended else MAX_STANDARD
    if identifier > limit:
        raise _malformed(f"the identifier {identifier:#x} is over {limit:#x}")
    return identifier


def _length(message: dict[str, t.Any]) -> int:
    length = message["data_length_code"]
    if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length <= MAX_DATA:
        raise _malformed(f"its data_length_code is {_shown(length)}, not a whole number from 0 to {MAX_DATA}")
    return length


def _data(message: dict[str, t.Any], length: int) -> bytes:
    lists = message["data"]
    if not isinstance(lists, list) or len(lists) < length:
        raise _malformed(f"its data is {_shown(lists)}, and data_length_code says {length}")
    try:
        return bytes(map(_byte_of, map(tuple, lists[:length])))
    except (KeyError, TypeError):
        raise _malformed(f"byte {_first_wrong(lists)} of its data is not a list of eight bits") from None


def _first_wrong(lists: list[t.Any]) -> int:
    def is_byte(bits: object) -> bool:
        return isinstance(bits, list) and len(bits) == len(_BYTES[0]) and all(bit in (0, 1) for bit in bits)

    return next(index for index, bits in enumerate(lists) if not is_byte(bits))


def _flag(message: dict[str, t.Any], key: str) -> bool:
    value = message[key]
    if value not in (0, 1):
        raise _malformed(f"its {key} is {_shown(value)}, not 0 or 1")
    return bool(value)


def _timestamp(message: dict[str, t.Any]) -> float:
    value = message["timestamp"]
    try:
        if isinstance(value, (float, int)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer of hundreds of digits
        pass
    raise _malformed(f"its timestamp is {_shown(value)}, not a number of seconds")


def _shown(value: object) -> str:
    """A value of somebody's message, short; what nests is only counted, since it may nest a thousand times."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    return printable(json.dumps(value), _SHOWN)


def _malformed(reason: str) -> InputError:
    return InputError(
        "invalid_frame", f"The CAN message cannot be used: {reason}; repair the program that sent it.", reason=reason
    )
