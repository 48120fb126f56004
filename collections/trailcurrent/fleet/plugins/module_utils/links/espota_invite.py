"""Invites one device until it accepts, answering its challenges on the way (ESPOTA.md, 1 and 2).

Rules, each for a way in which devices behave:

- An invitation is repeated each second until something answers: datagrams get lost, and a device that an earlier
  host left waiting for its password swallows the next one.
- A challenge is answered and followed by nothing else: any other datagram puts the device back to idle.
- A refusal counts only when one single invitation led to its challenge. Of several under way, a later one may have
  replaced the nonce that we answered.
- The module's connection is an answer too: its `OK` is a datagram and can be lost.
"""

from __future__ import annotations

import asyncio
import collections.abc
import dataclasses
import secrets
import socket
import typing as t

from ..errors import FleetError, LinkError, RefusedError
from ..formats.espota_auth import auth_reply, key_hashes
from ..formats.espota_text import ANSWER_LIMIT, Answer, AnswerKind, read_answer
from .espota_door import Door
from .sockets import wait_ready

INVITE_PERIOD: t.Final = 1.0  # s between invitations (ESPOTA.md, 1)
AUTH_ANSWER_WAIT: t.Final = 10.0  # s for the device's word on our reply, after its PBKDF2 (the old tool's)

_CONNECTED: t.Final = Answer(AnswerKind.ACCEPTED, "connected")


@dataclasses.dataclass(frozen=True)
class Peer:
    """The device of one attempt, as errors and messages name it."""

    name: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.name} at {self.address}, UDP port {self.port}"


class Negotiation:
    """One attempt to have ``peer`` accept ``invitation``; use it once."""

    def __init__(
        self,
        peer: Peer,
        udp: socket.socket,
        door: Door,
        invitation: bytes,
        *,
        password: str | None = None,
        message: collections.abc.Callable[[str], None],
    ) -> None:
        self.attempts = 0
        """Invitations sent."""
        self._peer = peer
        self._udp = udp
        self._door = door
        self._invitation = invitation
        self._password = password
        self._message = message
        self._clock = asyncio.get_running_loop().time
        self._started = self._deadline = self._clock()
        self._unanswered = 0  # invitations since the device's last word
        self._clean = False  # whether one single invitation led to the challenge that we answered
        self._key = 0  # which of the password's hashes is tried
        self._keys = 1
        self._refusals = 0
        self._said = ""  # the last thing that no device says
        self._other_address = ""
        self._send_error = ""

    async def run(self, seconds: float) -> None:
        """Return when the device has accepted.

        :param seconds: how long to go on inviting; a reply under way is waited for up to ``AUTH_ANSWER_WAIT`` beyond it
        :raises LinkError: ``no_answer``, or ``invalid_answer`` when only nonsense came
        :raises RefusedError: ``wrong_password``, ``password_required``
        """
        self._deadline = self._started + seconds
        while True:
            asked = await self._ask()
            challenged = asked.kind is AnswerKind.CHALLENGE
            answer = await self._authenticate(asked.nonce) if challenged else asked
            if answer is None:
                self._clean = False
            elif answer.kind is AnswerKind.ACCEPTED:
                return
            elif answer.kind is AnswerKind.AUTH_FAILED:
                self._refused()

    async def _ask(self) -> Answer:
        while not self.attempts or self._clock() < self._deadline:
            self._send(self._invitation)
            self.attempts += 1
            self._unanswered += 1
            answer = await self._receive(min(self._clock() + INVITE_PERIOD, self._deadline))
            if answer is not None:
                return answer
        raise self._given_up()

    async def _authenticate(self, nonce: str) -> Answer | None:
        if self._password is None:
            raise RefusedError(
                "password_required",
                f"Invited {self._peer}, and it asks for a password; give the module's `password`.",
                address=self._peer.address,
            )
        self._clean = self._unanswered == 1
        self._unanswered = 0
        until = self._clock() + AUTH_ANSWER_WAIT
        while True:
            self._reply(self._password, nonce)
            answer = await self._receive(until)
            if answer is None or answer.kind is not AnswerKind.CHALLENGE:
                return answer
            self._clean = False
            nonce = answer.nonce

    def _reply(self, password: str, nonce: str) -> None:
        keys = key_hashes(password, nonce)
        self._keys = len(keys)
        self._send(auth_reply(keys[min(self._key, self._keys - 1)], nonce, secrets.token_hex(len(nonce) // 2)))

    def _refused(self) -> None:
        self._refusals += 1
        if not self._clean:
            return
        self._clean = False
        self._key += 1
        if self._key >= self._keys:
            raise self._wrong_password()

    def _send(self, datagram: bytes) -> None:
        try:
            self._udp.sendto(datagram, (self._peer.address, self._peer.port))
        except OSError as error:  # no route for the moment, a full buffer: the next one may leave
            self._send_error = error.strerror or str(error)
        else:
            self._send_error = ""

    async def _receive(self, until: float) -> Answer | None:
        while (left := until - self._clock()) > 0:
            await wait_ready([self._udp, self._door.listener], seconds=left)
            if self._door.visited():
                return _CONNECTED
            answer = self._read()
            if answer is not None:
                return answer
        return None

    def _read(self) -> Answer | None:
        try:
            datagram, (sender, *_port) = self._udp.recvfrom(ANSWER_LIMIT)
        except OSError:
            return None
        if sender != self._peer.address:
            self._ignore(sender)
            return None
        answer = read_answer(datagram)
        if answer.kind is not AnswerKind.OTHER:
            return answer
        if answer.text != self._said:
            self._message(f"{self._peer.name} answered {answer.text!r}, which no module answers")
        self._said = answer.text
        return None

    def _ignore(self, sender: str) -> None:
        if sender != self._other_address:
            self._message(f"ignored an answer from {sender}: {self._peer.name} was invited at {self._peer.address}")
        self._other_address = sender

    def _given_up(self) -> FleetError:
        if self._refusals:
            return self._wrong_password()
        code, seen = "no_answer", "it did not answer"
        if self._said:
            code, seen = "invalid_answer", f"it only answered {self._said!r}"
        if self._other_address:
            seen += f" (an answer came from {self._other_address}, and was ignored)"
        if self._send_error:
            seen += f" (the last invitation did not leave: {self._send_error})"
        return LinkError(
            code,
            f"Invited {self._peer}, {self.attempts} times in {self._clock() - self._started:.0f} s, and {seen};"
            " check its power and its Wi-Fi, that it is in OTA mode, and that the address is still its own.",
            address=self._peer.address,
            attempts=self.attempts,
        )

    def _wrong_password(self) -> FleetError:
        return RefusedError(
            "wrong_password",
            f"Invited {self._peer}, and it refused the password in each form that modules keep it in;"
            " correct the module's `password`.",
            address=self._peer.address,
        )
