"""The espota link against odd peers on real sockets; faithful modules are in test_espota_modules.py."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import gc
import hashlib
import os
import pathlib
import socket
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import (
    FleetError,
    InputError,
    LinkError,
    RefusedError,
    UnknownOutcomeError,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import espota_auth
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.espota_answers import DEVICE_ERRORS
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import espota, espota_invite
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.transfer import Uploaded
from tests.integration.addresses import own_address
from tests.integration.scripted_device import Connection, Invitation, ScriptedDevice

ADDRESS = own_address(1, 11)
STRANGER = own_address(1, 99)
NAME = "esp32-8f56d8"
IMAGE = bytes(range(256)) * 64  # 16 KiB
MD5_NONCE = "ff71fbda1d0cf5a3887065d6093912b1"
SHA256_NONCE = "ab" * 32

Script = collections.abc.Callable[[ScriptedDevice], collections.abc.Awaitable[object]]


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> collections.abc.Iterator[None]:
    """Every way out of an upload has to close its sockets."""
    before = _open_sockets()
    yield
    gc.collect()
    assert _open_sockets() <= before


def _open_sockets() -> set[str]:
    links = set()
    for entry in pathlib.Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith("socket:"):
            links.add(target)
    return links


class Run:
    """One upload against one script, and what came of it."""

    def __init__(self, script: Script, image: bytes = IMAGE, **options: t.Any) -> None:
        self.messages: list[str] = []
        self.progress: list[tuple[int, int]] = []
        self.datagrams: list[bytes] = []
        self.answer: object = None
        self._script = script
        self._image = image
        self._ready_timeout: float = options.pop("ready_timeout", 10.0)
        self._transfer: dict[str, float] = {
            key: options.pop(key) for key in ("connect_timeout", "upload_timeout") if key in options
        }
        self._options = options

    def __call__(self) -> Uploaded:
        return asyncio.run(self._both())

    def failed(self, family: type[FleetError], code: str) -> FleetError:
        """Run, and return the error that is expected."""
        with pytest.raises(family) as caught:
            self()
        assert caught.value.code == code
        return caught.value

    async def _both(self) -> Uploaded:
        async with ScriptedDevice(ADDRESS) as device:
            script = asyncio.create_task(self._play(device))
            try:
                uploaded = await self._upload(device)
                await script
                return uploaded
            finally:
                self.datagrams = device.received
                await asyncio.wait([script], timeout=2.0)
                script.cancel()
                await asyncio.wait([script])

    async def _play(self, device: ScriptedDevice) -> None:
        self.answer = await self._script(device)

    async def _upload(self, device: ScriptedDevice) -> Uploaded:
        upload = espota.EspotaUpload(
            NAME,
            self._image,
            port=device.port,
            progress=lambda *step: self.progress.append(step),
            message=self.messages.append,
            **self._options,
        )
        async with upload:
            await upload.invite(ADDRESS, self._ready_timeout)
            return await upload.transfer(**self._transfer)


async def accept(device: ScriptedDevice, **options: t.Any) -> Connection:
    """What a device without a password does first."""
    invitation = await device.invited()
    device.answer(b"OK", invitation)
    return await device.connect(invitation, **options)


def last_words(text: bytes, *, after: int = len(IMAGE), end: str = "close") -> Script:
    """A script that takes ``after`` bytes, says ``text`` and ends the connection."""

    async def script(device: ScriptedDevice) -> bytes:
        connection = await accept(device)
        data = await connection.receive(after)
        connection.send(text)
        connection.close() if end == "close" else connection.reset()
        return data

    return script


# --- the healthy way ---------------------------------------------------------------------------------------------


def test_image_arrives_byte_for_byte_and_the_result_says_how() -> None:
    run = Run(last_words(b"1460" * 11 + b"324OK"))
    uploaded = run()
    assert run.answer == IMAGE
    assert uploaded == Uploaded(
        bytes=len(IMAGE),
        seconds=uploaded.seconds,
        attempts=1,
        address=ADDRESS,
        host_address="127.0.0.1",
        sha256=hashlib.sha256(IMAGE).hexdigest(),
    )
    assert run.progress[-1] == (len(IMAGE), len(IMAGE))
    assert run.progress == sorted(run.progress)
    assert run.messages == []


def test_invitation_is_command_port_size_and_md5_ended_by_a_newline() -> None:
    run = Run(last_words(b"OK"), host_ports=range(41_000, 41_100))
    run()
    command, port, size, digest = run.datagrams[0].split(b" ")
    assert command == b"0"
    assert 41_000 <= int(port) < 41_100
    assert int(size) == len(IMAGE)
    assert digest == hashlib.md5(IMAGE).hexdigest().encode() + b"\n"


def test_fixed_host_ip_is_where_the_module_is_told_to_connect() -> None:
    async def script(device: ScriptedDevice) -> str:
        invitation = await device.invited()
        device.answer(b"OK", invitation)
        connection = await device.connect(invitation)
        await connection.receive(len(IMAGE))
        connection.send(b"OK")
        return invitation.sender[0]

    run = Run(script, host_ip=own_address(1, 1))
    assert run().host_address == own_address(1, 1)
    assert run.answer == own_address(1, 1)


def test_success_needs_no_close_by_the_module() -> None:
    async def script(device: ScriptedDevice) -> None:
        connection = await accept(device)
        await connection.receive(len(IMAGE))
        connection.send(b"16384OK")
        await connection.ended()

    assert Run(script)().bytes == len(IMAGE)


def test_sending_side_stays_open_until_the_answer() -> None:
    async def script(device: ScriptedDevice) -> bool:
        connection = await accept(device)
        await connection.receive(len(IMAGE))
        waiting = asyncio.create_task(connection.ended())
        await asyncio.wait([waiting], timeout=1.0)
        still_open = not waiting.done()
        connection.send(b"OK")
        await waiting
        return still_open

    run = Run(script)
    run()
    assert run.answer is True


def test_numbers_nobody_counts_and_a_small_window_do_not_matter() -> None:
    async def script(device: ScriptedDevice) -> bytes:
        connection = await accept(device, window=2_304)
        data = b""
        while len(data) < len(IMAGE):
            data += await connection.receive(min(1_000, len(IMAGE) - len(data)))
            connection.send(b"10001000")  # each number twice
            await asyncio.sleep(0.002)
        connection.send(b"OK")
        return data

    run = Run(script)
    run()
    assert run.answer == IMAGE


def test_words_of_the_sketch_are_passed_on_and_do_not_decide() -> None:
    run = Run(last_words(b"1460\x1b[1mErase\r\n1460" + b"Almost there\r\n324OK"))
    run()
    assert run.messages == ["[1mErase", "Almost there"]


# --- inviting ----------------------------------------------------------------------------------------------------


def test_lost_invitations_are_sent_again_each_second() -> None:
    async def script(device: ScriptedDevice) -> None:
        await device.invited()
        await device.invited()
        connection = await accept(device)
        await connection.receive(len(IMAGE))
        connection.send(b"OK")

    run = Run(script)
    assert run().attempts == 3
    assert len(set(run.datagrams)) == 1


def test_ok_that_was_lost_is_replaced_by_the_connection() -> None:
    async def script(device: ScriptedDevice) -> None:
        connection = await device.connect(await device.invited())
        await connection.receive(len(IMAGE))
        connection.send(b"OK")

    assert Run(script)().attempts == 1


def test_silence_is_no_answer_and_says_how_often_it_was_tried() -> None:
    async def script(device: ScriptedDevice) -> None:
        await device.invited()

    run = Run(script, ready_timeout=1.5)
    error = run.failed(LinkError, "no_answer")
    assert NAME in str(error) and ADDRESS in str(error) and "2 times" in str(error)
    assert error.details["attempts"] == 2


def test_nobody_at_the_address_is_no_answer() -> None:
    async def scenario() -> None:
        async with espota.EspotaUpload(NAME, IMAGE, port=3) as upload:
            await upload.invite("127.21.1.77", 0.3)

    with pytest.raises(LinkError, match="did not answer") as caught:
        asyncio.run(scenario())
    assert caught.value.code == "no_answer"


def test_answer_from_another_address_is_ignored_and_named() -> None:
    async def script(device: ScriptedDevice) -> None:
        device.answer(b"OK", await device.invited(), from_address=STRANGER)

    run = Run(script, ready_timeout=0.5)
    assert STRANGER in str(run.failed(LinkError, "no_answer"))
    assert len(run.messages) == 1 and STRANGER in run.messages[0]


def test_nonsense_is_an_invalid_answer_shown_printable() -> None:
    async def script(device: ScriptedDevice) -> None:
        device.answer(b"HTTP/1.1 400\x00\x07", await device.invited())

    error = Run(script, ready_timeout=0.5).failed(LinkError, "invalid_answer")
    assert "'HTTP/1.1 400'" in str(error)


def test_second_invite_takes_no_connection_of_the_first() -> None:
    async def scenario() -> bool:
        async with (
            ScriptedDevice(ADDRESS) as device,
            espota.EspotaUpload(NAME, IMAGE, port=device.port) as upload,
        ):
            first, stale = await asyncio.gather(upload.invite(ADDRESS, 5.0), _invited_and_accepted(device))
            assert first is None
            _second, fresh = await asyncio.gather(upload.invite(ADDRESS, 5.0), _invited_and_accepted(device))
            assert fresh.host_port != stale.host_port
            with pytest.raises(ConnectionRefusedError):
                await device.connect(stale)
            return True

    assert asyncio.run(scenario())


async def _invited_and_accepted(device: ScriptedDevice) -> Invitation:
    invitation = await device.invited()
    device.answer(b"OK", invitation)
    return invitation


def test_upload_ports_that_are_busy_are_passed_over() -> None:
    with socket.socket() as busy:
        busy.bind(("", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        run = Run(last_words(b"OK"), host_ports=range(taken, taken + 2))
        run()
    assert int(run.datagrams[0].split(b" ")[1]) == taken + 1


def test_no_free_upload_port_is_said_before_anything_is_sent() -> None:
    async def script(device: ScriptedDevice) -> None:
        await device.invited()

    with socket.socket() as busy:
        busy.bind(("", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        run = Run(script, host_ports=range(taken, taken + 1))
        error = run.failed(LinkError, "port_unavailable")
    assert str(taken) in str(error)
    assert run.datagrams == []


def test_host_ip_of_another_machine_is_port_unavailable() -> None:
    error = Run(last_words(b"OK"), host_ip="192.0.2.1").failed(LinkError, "port_unavailable")
    assert "192.0.2.1" in str(error)


@pytest.mark.parametrize("address", ["", "esp32-8f56d8", "::1", "127.21.1.300", "127.21.1.1:3232"])
def test_address_that_is_none_is_refused_before_anything_is_sent(address: str) -> None:
    async def scenario() -> None:
        async with espota.EspotaUpload(NAME, IMAGE) as upload:
            await upload.invite(address, 1.0)

    with pytest.raises(InputError) as caught:
        asyncio.run(scenario())
    assert caught.value.code == "invalid_option"


def test_empty_image_is_refused_at_once() -> None:
    with pytest.raises(InputError) as caught:
        espota.EspotaUpload(NAME, b"")
    assert caught.value.code == "image_empty"


# --- passwords ---------------------------------------------------------------------------------------------------


def reply_is_right(reply: bytes, nonce: str, key_hash: str) -> bool:
    command, cnonce, response = reply.decode("ascii").split(" ")
    expected = espota_auth.auth_reply(key_hash, nonce, cnonce).decode("ascii").split(" ")[2]
    return command == "200" and len(cnonce) == len(nonce) and response == expected


def with_password(nonce: str, key_hash: str) -> Script:
    """A script that challenges until a reply is right for ``key_hash``."""

    async def script(device: ScriptedDevice) -> None:
        while True:
            device.answer(f"AUTH {nonce}".encode(), await device.invited())
            reply = await device.invited()
            if reply_is_right(reply.datagram, nonce, key_hash):
                break
            device.answer(b"Authentication Failed", reply)
        device.answer(b"OK", reply)
        connection = await device.connect(Invitation(device.received[0], reply.sender))
        await connection.receive(len(IMAGE))
        connection.send(b"OK")

    return script


PASSWORD = "pass wörd"
MD5 = hashlib.md5(PASSWORD.encode()).hexdigest()
SHA256 = hashlib.sha256(PASSWORD.encode()).hexdigest()


@pytest.mark.parametrize(
    ("nonce", "key_hash", "datagrams"),
    [(MD5_NONCE, MD5, 2), (SHA256_NONCE, SHA256, 2), (SHA256_NONCE, MD5, 4)],
    ids=["md5", "sha256", "sha256 over a stored md5"],
)
def test_each_scheme_is_answered_as_the_module_expects(nonce: str, key_hash: str, datagrams: int) -> None:
    run = Run(with_password(nonce, key_hash), password=PASSWORD)
    run()
    assert len(run.datagrams) == datagrams


@pytest.mark.parametrize(("nonce", "datagrams"), [(MD5_NONCE, 2), (SHA256_NONCE, 4)])
def test_wrong_password_is_final_after_each_form_of_it(nonce: str, datagrams: int) -> None:
    run = Run(with_password(nonce, "0" * len(nonce)), password="wrong")
    error = run.failed(RefusedError, "wrong_password")
    assert len(run.datagrams) == datagrams
    assert "wrong" not in str(error.details)


def test_missing_password_is_asked_for_and_nothing_more_is_sent() -> None:
    run = Run(with_password(MD5_NONCE, MD5))
    run.failed(RefusedError, "password_required")
    assert len(run.datagrams) == 1


def test_after_a_challenge_nothing_is_sent_but_the_reply() -> None:
    async def script(device: ScriptedDevice) -> list[bytes]:
        device.answer(f"AUTH {SHA256_NONCE}".encode(), await device.invited())
        reply = await device.invited()
        await asyncio.sleep(espota_invite.INVITE_PERIOD * 2.5)
        device.answer(b"OK", reply)
        connection = await device.connect(Invitation(device.received[0], reply.sender))
        await connection.receive(len(IMAGE))
        connection.send(b"OK")
        return device.received + device.pending()

    run = Run(script, password=PASSWORD)
    run()
    assert [datagram.split(b" ")[0] for datagram in t.cast("list[bytes]", run.answer)] == [b"0", b"200"]


def test_module_left_waiting_by_a_dead_host_takes_the_second_invitation() -> None:
    async def script(device: ScriptedDevice) -> None:
        await device.invited()  # swallowed: it waited for another host's reply
        await with_password(MD5_NONCE, MD5)(device)

    run = Run(script, password=PASSWORD)
    assert run().attempts == 2


def test_lost_reply_begins_again_with_an_invitation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espota_invite, "AUTH_ANSWER_WAIT", 0.3)

    async def script(device: ScriptedDevice) -> None:
        device.answer(f"AUTH {MD5_NONCE}".encode(), await device.invited())
        await device.invited()  # the reply, lost
        await device.invited()  # swallowed: still waiting
        await with_password(MD5_NONCE, MD5)(device)

    run = Run(script, password=PASSWORD)
    assert run().attempts == 3


def test_refusal_of_an_overtaken_nonce_is_no_wrong_password() -> None:
    async def script(device: ScriptedDevice) -> None:
        await device.invited()
        slow = await device.invited()  # two are under way: the module challenged for each of them
        device.answer(f"AUTH {'0' * 32}".encode(), slow)
        reply = await device.invited()
        device.answer(b"Authentication Failed", reply)
        await with_password(MD5_NONCE, MD5)(device)

    assert Run(script, password=PASSWORD)().bytes == len(IMAGE)


@pytest.mark.parametrize("nonce", ["ab" * 8, "zz" * 16, ""])
def test_challenge_that_nobody_can_answer_is_an_invalid_answer(nonce: str) -> None:
    async def script(device: ScriptedDevice) -> None:
        device.answer(f"AUTH {nonce}".encode(), await device.invited())

    Run(script, password=PASSWORD, ready_timeout=0.5).failed(LinkError, "invalid_answer")


# --- connecting back ---------------------------------------------------------------------------------------------


def test_module_that_never_connects_names_isolation_firewall_and_ports() -> None:
    async def script(device: ScriptedDevice) -> None:
        device.answer(b"OK", await device.invited())

    run = Run(script, connect_timeout=0.4, host_ports=range(42_000, 42_100))
    error = run.failed(LinkError, "no_connection_back")
    port = run.datagrams[0].split(b" ")[1].decode()
    for part in ("client isolation", "firewall", "42000-42099", port, "partition", "16,384", "127.0.0.1"):
        assert part in str(error)


def test_stranger_at_the_upload_port_is_closed_and_the_wait_goes_on() -> None:
    async def script(device: ScriptedDevice) -> tuple[bytes, bytes]:
        invitation = await device.invited()
        device.answer(b"OK", invitation)
        stranger = await device.connect(invitation, from_address=STRANGER)
        stolen = b""
        with contextlib.suppress(ConnectionResetError):
            stolen = await stranger.receive(1)
        connection = await device.connect(invitation)
        data = await connection.receive(len(IMAGE))
        connection.send(b"OK")
        return stolen, data

    run = Run(script)
    run()
    assert run.answer == (b"", IMAGE)
    assert len(run.messages) == 1 and STRANGER in run.messages[0]


def test_only_strangers_at_the_upload_port_are_counted_in_the_error() -> None:
    async def script(device: ScriptedDevice) -> None:
        invitation = await device.invited()
        device.answer(b"OK", invitation)
        await device.connect(invitation, from_address=STRANGER)
        await device.connect(invitation, from_address=STRANGER)

    error = Run(script, connect_timeout=0.4).failed(LinkError, "no_connection_back")
    assert "2 connections from other addresses" in str(error)


# --- how an upload ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", sorted(DEVICE_ERRORS))
def test_each_error_text_has_its_code(text: str) -> None:
    code, family = DEVICE_ERRORS[text]
    run = Run(last_words(b"146014601460" + text.encode() + b"\r\n", after=4_096))
    error = run.failed(family, code)
    assert error.details["device_message"] == text
    assert text in str(error)
    assert text in run.messages


@pytest.mark.parametrize("end", ["close", "reset"])
def test_error_text_survives_the_reset_that_follows_it(end: str) -> None:
    big = os.urandom(8 << 20)  # far more than the kernels buffer: the host still writes when the reset comes
    run = Run(last_words(b"4096Wrong Magic Byte\r\n", after=4_096, end=end), image=big)
    error = run.failed(RefusedError, "image_rejected")
    assert error.details["device_message"] == "Wrong Magic Byte"


def test_error_text_after_the_last_byte_is_no_success() -> None:
    Run(last_words(b"16384MD5 Check Failed\r\n")).failed(RefusedError, "image_rejected")


def test_text_of_its_own_and_a_close_is_a_refusal_that_shows_it() -> None:
    big = os.urandom(8 << 20)  # more than the kernels buffer: not all of it is acknowledged
    error = Run(last_words(b"1460OK, but no\r\n", after=4_096), image=big).failed(RefusedError, "image_rejected")
    assert "'OK, but no'" in str(error)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_words_of_a_sketch_whose_ok_was_lost_leave_the_outcome_unknown(end: str) -> None:
    run = Run(last_words(b"16384\r\nRebooting\r\n", end=end))
    error = run.failed(UnknownOutcomeError, "outcome_unknown")
    assert error.details["device_message"] == "Rebooting"
    assert run.messages == ["Rebooting"]


def test_endless_text_is_capped() -> None:
    run = Run(last_words(b"x" * 5_000 + b"\r\n"))
    error = run.failed(UnknownOutcomeError, "outcome_unknown")
    assert len(str(error.details["device_message"])) < 250


@pytest.mark.parametrize("end", ["close", "reset"])
def test_all_acknowledged_and_no_word_is_unknown(end: str) -> None:
    error = Run(last_words(b"16384", end=end)).failed(UnknownOutcomeError, "outcome_unknown")
    assert error.details["acknowledged"] == len(IMAGE)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_close_in_the_middle_is_a_reset_upload(end: str) -> None:
    big = os.urandom(8 << 20)
    error = Run(last_words(b"", after=10_000, end=end), image=big).failed(LinkError, "upload_reset")
    assert 10_000 <= t.cast("int", error.details["acknowledged"]) < len(big)


def test_ok_before_the_last_byte_is_no_success() -> None:
    big = os.urandom(8 << 20)
    Run(last_words(b"1000OK", after=1_000, end="close"), image=big).failed(LinkError, "invalid_answer")


def silent_after(size: int) -> Script:
    async def script(device: ScriptedDevice) -> str:
        connection = await accept(device, window=2_304)
        await connection.receive(size)
        await asyncio.sleep(1.0)
        try:
            while await connection.receive(65_536):
                pass
        except ConnectionResetError:
            return "reset"
        return "closed"

    return script


def test_silence_while_bytes_are_under_way_is_a_stall_and_resets_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espota, "STALL_LIMIT", 0.5)
    run = Run(silent_after(5_000), image=os.urandom(8 << 20))
    run.failed(LinkError, "upload_stalled")
    assert run.answer == "reset"


def test_silence_after_the_last_byte_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espota, "ANSWER_LIMIT", 0.5)
    Run(silent_after(len(IMAGE))).failed(UnknownOutcomeError, "outcome_unknown")


def test_module_that_takes_too_long_is_unfinished() -> None:
    async def script(device: ScriptedDevice) -> None:
        connection = await accept(device, window=2_304)
        while await connection.receive(500):
            connection.send(b"500")
            await asyncio.sleep(0.05)

    Run(script, image=os.urandom(8 << 20), upload_timeout=0.6).failed(LinkError, "upload_unfinished")


def test_our_time_outs_outlast_the_modules() -> None:
    assert espota.STALL_LIMIT > espota.DEVICE_GIVES_UP
    assert espota.CONNECT_TIMEOUT > 3.0  # s, the device's own limit for its connection
    assert espota_invite.AUTH_ANSWER_WAIT > espota_invite.INVITE_PERIOD


def test_first_byte_leaves_as_soon_as_the_connection_is_there() -> None:
    async def script(device: ScriptedDevice) -> bytes:
        connection = await accept(device)
        async with asyncio.timeout(0.8):  # the device gives up after 1 s
            first = await connection.receive(1)
        await connection.receive(len(IMAGE) - 1)
        connection.send(b"OK")
        return first

    run = Run(script)
    run()
    assert run.answer == IMAGE[:1]


# --- cancelled at any line ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [*range(1, 12), 20, 50])
def test_cancelled_upload_leaves_the_module_idle(turns: int) -> None:
    """Cancel after some turns of the loop: during the invitation, the wait for the connection, and the transfer."""

    async def device_side(device: ScriptedDevice) -> str:
        connection = await accept(device, window=2_304)
        try:
            while await connection.receive(10_000):
                pass
        except ConnectionResetError:
            return "reset"
        return "closed"

    async def host_side(port: int) -> None:
        async with espota.EspotaUpload(NAME, os.urandom(8 << 20), port=port) as upload:
            await upload.invite(ADDRESS, 10.0)
            await upload.transfer()

    async def scenario() -> None:
        async with ScriptedDevice(ADDRESS) as device:
            peer = asyncio.create_task(device_side(device))
            host = asyncio.create_task(host_side(device.port))
            for _ in range(turns):
                await asyncio.sleep(0)
            host.cancel()
            with pytest.raises(asyncio.CancelledError):
                await host
            done, _ = await asyncio.wait([peer], timeout=0.5)
            if done:
                assert isinstance(peer.exception(), OSError) or peer.result() == "reset"
            peer.cancel()
            await asyncio.wait([peer])

    asyncio.run(scenario())


def test_upload_cancelled_during_the_transfer_resets_the_module() -> None:
    async def device_side(device: ScriptedDevice) -> str:
        connection = await accept(device, window=2_304)
        await connection.receive(5_000)
        host.cancel()
        try:
            while await connection.receive(10_000):
                pass
        except ConnectionResetError:
            return "reset"
        return "closed"

    async def host_side(port: int) -> None:
        async with espota.EspotaUpload(NAME, os.urandom(8 << 20), port=port) as upload:
            await upload.invite(ADDRESS, 10.0)
            await upload.transfer()

    async def scenario() -> str:
        nonlocal host
        async with ScriptedDevice(ADDRESS) as device:
            host = asyncio.create_task(host_side(device.port))
            ended = await device_side(device)
            with pytest.raises(asyncio.CancelledError):
                await host
            return ended

    host: asyncio.Task[None]
    assert asyncio.run(scenario()) == "reset"
