"""What must be true before a module is woken: battery full enough, RV not moving, ...

A precondition names a source (an MQTT ``topic`` or a ``can_id``), a ``field`` in what arrives there, a ``test`` on its
value, how old the value may be (``max_age``, seconds) and the ``hint`` for the user when it is not met.

- Of a topic's JSON, ``field`` is a dotted path (``battery.voltage``); without a field the payload itself is the value.
- Of a CAN frame, ``field`` is ``<first byte>:<length>[:little][:signed]``, for instance ``2:2`` (big-endian, as
  most modules send) or ``0:2:little:signed``.
- ``test`` is an operator and a JSON value: ``>= 12.2``, ``== "parked"``, ``!= true``.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import operator
import re
import typing as t

from ..errors import InputError

DEFAULT_MAX_AGE: t.Final = 30.0  # s
MAX_CAN_IDENTIFIER: t.Final = 0x1FFFFFFF
MAX_FRAME_BYTES: t.Final = 8

OPERATORS: t.Final[dict[str, collections.abc.Callable[[t.Any, t.Any], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_TEST = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*(.+?)\s*", re.DOTALL)
_SLICE = re.compile(r"([0-7]):([1-8])((?::little|:signed)*)")


@dataclasses.dataclass(frozen=True)
class Precondition:
    """One condition. Exactly one of ``topic`` and ``can_id`` is set."""

    topic: str | None
    can_id: int | None
    field: str
    sign: str
    bound: float | str | bool | None
    max_age: float
    hint: str

    @property
    def source(self) -> str:
        """Where its value comes from, for people."""
        return self.topic if self.topic is not None else f"CAN id 0x{self.can_id:03x}"

    def value_of_payload(self, payload: bytes) -> object:
        """The value in an MQTT message; None where it has none."""
        try:
            value = json.loads(payload)
        except ValueError:
            return payload.decode("utf-8", "replace") if not self.field else None
        for key in self.field.split(".") if self.field else ():
            value = value.get(key) if isinstance(value, dict) else None
        return t.cast(object, value)

    def value_of_frame(self, data: bytes) -> int | None:
        """The value in a frame's data; None where the frame is too short."""
        found = _SLICE.fullmatch(self.field)
        if not found:
            return None
        first, length = int(found[1]), int(found[2])
        if len(data) < first + length:
            return None
        order: t.Literal["little", "big"] = "little" if ":little" in found[3] else "big"
        return int.from_bytes(data[first : first + length], order, signed=":signed" in found[3])

    def holds(self, value: object) -> bool:
        """Whether ``value`` passes the test; a value of another kind does not."""
        if isinstance(value, bool) is not isinstance(self.bound, bool):
            return False
        try:
            return OPERATORS[self.sign](value, self.bound)
        except TypeError:
            return False


def parse_precondition(options: collections.abc.Mapping[str, t.Any]) -> Precondition:
    """One entry of the option ``preconditions``.

    :raises InputError: ``invalid_option``, naming what is wrong
    """
    topic, can_id = options.get("topic"), _identifier(options.get("can_id"))
    if (topic is None) == (can_id is None):
        raise _invalid(options, "needs exactly one of topic and can_id")
    field = str(options.get("field") or "")
    if can_id is not None and not _fits(field):
        raise _invalid(options, f"has the field {field!r}, which is no `<first byte>:<length>` within 8 bytes")
    test = _TEST.fullmatch(str(options.get("test") or ""))
    if not test:
        raise _invalid(
            options, f"has the test {options.get('test')!r}, expected an operator and a value, as in `>= 12.2`"
        )
    max_age = float(options.get("max_age") or DEFAULT_MAX_AGE)
    condition = Precondition(topic, can_id, field, test[1], _bound(test[2]), max_age, str(options.get("hint") or ""))
    return dataclasses.replace(condition, hint=condition.hint or f"{condition.source} {field} must be {test[0]}")


def _bound(text: str) -> float | str | bool | None:
    try:
        value = json.loads(text)
    except ValueError:
        return text.strip("'")
    return value if isinstance(value, float | int | str | bool) or value is None else text


def _fits(field: str) -> bool:
    found = _SLICE.fullmatch(field)
    return found is not None and int(found[1]) + int(found[2]) <= MAX_FRAME_BYTES


def _identifier(value: object) -> int | None:
    if value is None:
        return None
    try:
        identifier = value if isinstance(value, int) else int(str(value), 16)
    except ValueError:
        identifier = -1
    if not 0 <= identifier <= MAX_CAN_IDENTIFIER:
        raise InputError(
            "invalid_option", f"the precondition's can_id {value!r} is no CAN identifier; give it as `0x123`"
        )
    return identifier


def _invalid(options: collections.abc.Mapping[str, t.Any], reason: str) -> InputError:
    name = options.get("topic") or options.get("can_id") or "without a source"
    return InputError("invalid_option", f"the precondition {name} {reason}; correct it in `preconditions`")
