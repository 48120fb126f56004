"""How a board takes Wi-Fi credentials from the bus: one frame after the other, into fixed buffers.

Written from PROTOCOLS.md (CAN over MQTT) and not from the sender's code: a bug on both sides would cancel out.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import typing as t

PATIENCE: t.Final = 5.0
"""Seconds of silence after which a sequence that is not complete is forgotten."""
SSID_ROOM: t.Final = 32
PASSWORD_ROOM: t.Final = 63
"""Bytes that a board keeps of each."""
HISTORY: t.Final = 400
"""Frames that it remembers for those who look; twenty of the longest sequences."""
_BEGIN, _SSID, _PASSWORD, _FINISH = 1, 2, 3, 4
_TEXT_BYTES: t.Final = 6


@dataclasses.dataclass
class _Part:
    """One of the two texts while it arrives."""

    length: int
    chunks: dict[int, bytes] = dataclasses.field(default_factory=dict)

    def text(self) -> bytes:
        return b"".join(self.chunks[index] for index in sorted(self.chunks))[: self.length]


@dataclasses.dataclass
class _Sequence:
    """What has arrived since the begin."""

    expected: dict[int, int]
    parts: dict[int, _Part]

    def complete(self) -> bool:
        return all(set(self.parts[kind].chunks) == set(range(count)) for kind, count in self.expected.items())


class WifiReceiver:
    """A board's half of the protocol. Lengths, indices, completeness, checksum and silence are all judged.

    ``stored`` is the last network that it took; a sequence that breaks any rule changes nothing and counts in
    ``rejected``.
    """

    def __init__(self) -> None:
        self.stored: tuple[str, str] | None = None
        """SSID and password, or None."""
        self.taken = 0
        """Networks that were stored, the same one again too."""
        self.rejected = 0
        """Sequences and frames that were not accepted."""
        self.frames: collections.deque[tuple[float, bytes]] = collections.deque(maxlen=HISTORY)
        """Every 0x01 that it heard, and when (seconds of the loop's clock)."""
        self._sequence: _Sequence | None = None
        self._last = float("-inf")

    def hear(self, data: bytes, now: float) -> bool:
        """Take a frame; True when it completed a network, which is stored then."""
        self.frames.append((now, data))
        if now - self._last > PATIENCE:
            self.lose_power()
        self._last = now
        kind = data[0] if data else 0
        if kind == _BEGIN:
            return self._begin(data)
        if self._sequence is None:
            return self._reject()
        if kind in (_SSID, _PASSWORD):
            return self._add(self._sequence, kind, data)
        return self._finish(self._sequence, data) if kind == _FINISH else self._reject()

    def lose_power(self) -> None:
        """Forget a sequence that is under way; what is stored stays."""
        self.rejected += self._sequence is not None
        self._sequence = None

    def erase(self) -> None:
        """Forget the network as well."""
        self.lose_power()
        self.stored = None

    def status(self) -> dict[str, t.Any]:
        """What it has, for programs: the password by its digest, so that no log or test output holds it."""
        ssid, password = self.stored or (None, None)
        first = self.frames[0][0] if self.frames else 0.0
        return {
            "ssid": ssid,
            "password_sha256": None if password is None else hashlib.sha256(password.encode()).hexdigest(),
            "taken": self.taken,
            "rejected": self.rejected,
            "frames": [{"at": round(at - first, 4), "data": data.hex()} for at, data in self.frames],
        }

    def _begin(self, data: bytes) -> bool:
        self.lose_power()
        if len(data) < 5 or not 1 <= data[1] <= SSID_ROOM or data[2] > PASSWORD_ROOM:
            return self._reject()
        lengths = {_SSID: data[1], _PASSWORD: data[2]}
        counts = {_SSID: data[3], _PASSWORD: data[4]}
        if any(counts[kind] != (length + _TEXT_BYTES - 1) // _TEXT_BYTES for kind, length in lengths.items()):
            return self._reject()
        self._sequence = _Sequence(counts, {kind: _Part(length) for kind, length in lengths.items()})
        return False

    def _add(self, sequence: _Sequence, kind: int, data: bytes) -> bool:
        if len(data) != 2 + _TEXT_BYTES or data[1] >= sequence.expected[kind]:
            return self._reject()
        sequence.parts[kind].chunks[data[1]] = data[2:]
        return False

    def _finish(self, sequence: _Sequence, data: bytes) -> bool:
        self._sequence = None
        ssid, password = sequence.parts[_SSID].text(), sequence.parts[_PASSWORD].text()
        checksum = 0
        for byte in (*ssid, *password):
            checksum ^= byte
        if not sequence.complete() or data[1:2] != bytes([checksum]):
            return self._reject()
        self.stored = (ssid.decode("utf-8", "replace"), password.decode("utf-8", "replace"))
        self.taken += 1
        return True

    def _reject(self) -> bool:
        self.rejected += 1
        return False
