"""Every quirk of ESPOTA.md, seen by a host of raw sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pathlib
import re
import socket
import time

import pytest

from tests.virtual_rv.host import DEVICE, IMAGE, OTHER, Host, in_ota, listen, push, reset
from virtual_rv.espota_device import expected_response, parse_invitation, parse_reply
from virtual_rv.image import make_image
from virtual_rv.module import Faults

VECTORS = json.loads((pathlib.Path(__file__).parents[1] / "fixtures/vectors/espota_auth.json").read_text())["cases"]
MD5 = hashlib.md5(IMAGE).hexdigest()


def md5_of(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


# invitation


@pytest.mark.parametrize(
    "datagram",
    [b"", b"\n", b"hello\n", b"1 5000 100 " + b"a" * 32 + b"\n", b"200 5000 100 " + b"a" * 32 + b"\n",
     b"0 5000 100 " + b"a" * 31 + b"\n", b"0 5000 100 " + b"a" * 33 + b"\n", b"0 5000 100\n"],
)  # fmt: skip
def test_bad_invitation_is_never_answered(datagram: bytes) -> None:
    async def scenario() -> None:
        async with in_ota() as module:
            with Host() as host:
                assert await host.ask(datagram, 0.15) is None
                assert module.attempts == 0
                assert (await host.upload()).endswith("OK")

    assert parse_invitation(datagram) is None
    asyncio.run(scenario())


def test_invitation_is_answered_without_a_line_end_to_the_port_it_came_from() -> None:
    async def scenario() -> None:
        async with in_ota():
            with Host() as host:
                host.send(host.invitation())
                assert await host.answer() == ("OK", DEVICE)
                found = await host.connection()
                assert found and found[1] == DEVICE
                found[0].close()

    asyncio.run(scenario())


def test_module_that_is_not_in_ota_mode_is_silent() -> None:
    async def scenario() -> None:
        async with in_ota(ota_window=0.1) as module:
            await module.until(lambda: module.state.value == "running")
            with Host() as host:
                assert await host.ask(host.invitation(), 0.2) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [0, 0x1E0000 + 1])
def test_size_of_nothing_or_too_large_is_accepted_and_never_connected(size: int) -> None:
    async def scenario() -> None:
        async with in_ota():
            with Host() as host:
                assert await host.ask(host.invitation(size=size)) == "OK"
                assert await host.connection(0.3) is None
                assert (await host.upload()).endswith("OK")

    asyncio.run(scenario())


def test_datagram_while_updating_is_served_after_a_failure_and_starts_another_update() -> None:
    async def scenario() -> None:
        async with in_ota() as module:
            with Host() as host:
                sock = await host.invited()
                for _ in range(9):
                    host.send(host.invitation())
                assert await host.answer(0.2) is None
                reset(sock)
                assert await host.answer() == ("OK", DEVICE)
                found = await host.connection()
                assert found
                assert module.attempts == 2
                for number in range(3, 8):  # six datagrams were queued: this update, and five more
                    reset(found[0])
                    found = await host.connection()
                    assert found and module.attempts == number
                reset(found[0])
                assert await host.connection(0.3) is None

    asyncio.run(scenario())


# authentication


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{case['scheme']}-{case['password']}")
def test_responses_are_those_of_the_field(case: dict[str, str]) -> None:
    scheme = "sha256_md5" if case.get("stored_hash") == "md5" else case["scheme"]
    assert expected_response(scheme, case["password"], case["nonce"], case["cnonce"]) == case["response"]


def test_sha256_response_is_the_documented_one() -> None:
    response = expected_response("sha256", "a-real-password", "ab" * 32, "cd" * 32)
    assert response == "4d63ba8b1efa8949a0c5caefe7e8bc77db582e5531bdf2667c663394b4551b93"


@pytest.mark.parametrize(("scheme", "digits"), [("md5", 32), ("sha256", 64), ("sha256_md5", 64)])
def test_right_password_is_accepted(scheme: str, digits: int) -> None:
    async def scenario() -> None:
        async with in_ota(auth=scheme, password="secret"):
            with Host() as host:
                answer = await host.ask(host.invitation())
                assert answer and re.fullmatch(f"AUTH [0-9a-f]{{{digits}}}", answer)
                cnonce = "5" * digits
                response = expected_response(scheme, "secret", answer[5:], cnonce)
                assert await host.ask(f"200 {cnonce} {response}\n".encode()) == "OK"
                found = await host.connection()
                assert found
                _, said = await asyncio.gather(push(found[0], IMAGE), listen(found[0]))
                assert said.endswith("OK")
                found[0].close()

    asyncio.run(scenario())


def test_md5_response_is_computed_as_documented() -> None:
    nonce, cnonce = "1" * 32, "2" * 32
    assert expected_response("md5", "pw", nonce, cnonce) == md5_of(f"{md5_of('pw')}:{nonce}:{cnonce}")


def test_wrong_password_fails_with_words_and_can_be_invited_at_once() -> None:
    async def scenario() -> None:
        async with in_ota(auth="md5", password="secret"):
            with Host() as host:
                for _ in range(3):  # no lock-out
                    assert str(await host.ask(host.invitation())).startswith("AUTH ")
                    assert await host.ask(b"200 " + b"1" * 32 + b" " + b"2" * 32 + b"\n") == "Authentication Failed"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "reply",
    [b"200 " + b"1" * 31 + b" " + b"2" * 32 + b"\n", b"200 " + b"1" * 32 + b"  " + b"2" * 32 + b"\n", b"0 1 2 3\n"],
)
def test_malformed_reply_puts_it_to_idle_without_a_word(reply: bytes) -> None:
    async def scenario() -> None:
        async with in_ota(auth="md5", password="secret"):
            with Host() as host:
                assert str(await host.ask(host.invitation())).startswith("AUTH ")
                assert await host.ask(reply, 0.15) is None
                assert str(await host.ask(host.invitation())).startswith("AUTH ")

    assert parse_reply(reply, 32) is None
    asyncio.run(scenario())


def test_left_waiting_for_a_reply_it_ignores_one_invitation_and_takes_the_next() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(left_in_auth=True)):
            with Host() as host:
                assert await host.ask(host.invitation(), 0.2) is None
                assert await host.ask(host.invitation()) == "OK"

    asyncio.run(scenario())


# transfer


def test_first_byte_must_come_within_a_second() -> None:
    async def scenario() -> None:
        async with in_ota() as module:
            with Host() as host:
                sock = await host.invited()
                begun = time.monotonic()
                assert await listen(sock) == ""
                assert 0.9 < time.monotonic() - begun < 3
                assert module.state.value == "ota"
                sock.close()

    asyncio.run(scenario())


def test_silence_is_answered_by_the_last_number_three_times_then_closed_without_a_word() -> None:
    async def scenario() -> None:
        async with in_ota():
            with Host() as host:
                sock = await host.invited()
                await push(sock, IMAGE[:1000])
                begun = time.monotonic()
                assert await listen(sock) == "1000" * 4
                assert 3.8 < time.monotonic() - begun < 6
                sock.close()

    asyncio.run(scenario())


def test_counts_have_no_separator_and_reads_are_1460_bytes_at_most() -> None:
    async def scenario() -> None:
        async with in_ota():
            with Host() as host:
                said = await host.upload(IMAGE[:16] + IMAGE[16:])
        numbers = said.removesuffix("OK")
        assert said.endswith("OK") and numbers.isdigit()
        assert "1460" in numbers

    asyncio.run(scenario())


def test_half_a_close_ends_it_at_once_without_a_word() -> None:
    async def scenario() -> None:
        async with in_ota() as module:
            with Host() as host:
                sock = await host.invited()
                await push(sock, IMAGE[:5000])
                await asyncio.sleep(0.1)
                sock.shutdown(socket.SHUT_WR)
                said = await listen(sock, 0.8)
                assert re.fullmatch("[0-9]*(RESET)?", said)
                assert module.uploads == 0
                sock.close()

    asyncio.run(scenario())


def test_wrong_magic_byte_is_said_after_4_kib_and_unread_data_make_it_a_reset() -> None:
    async def scenario() -> None:
        image = b"\x7fELF" + IMAGE[4:]
        async with in_ota() as module:
            with Host() as host:
                sock = await host.invited(image)
                await push(sock, image[:4095])
                await asyncio.sleep(0.1)
                sock.setblocking(False)
                assert sock.recv(1000).isdigit()
                await push(sock, image[4095:12000])
                assert re.fullmatch("[0-9]*Wrong Magic Byte\r\nRESET", await listen(sock))
                sock.close()
                assert module.state.value == "ota"
                assert (await host.upload()).endswith("OK")

    asyncio.run(scenario())


def test_wrong_md5_is_said_and_the_old_firmware_stays() -> None:
    async def scenario() -> None:
        async with in_ota() as module:
            with Host() as host:
                assert (await host.upload(md5=MD5.upper())).endswith("MD5 Check Failed\r\n")
                assert (module.version, module.uploads) == ("0.9.0", 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("image", [IMAGE[:-1] + b"x", make_image(size=20_000, chip="esp32c6")])
def test_image_that_would_not_boot_cannot_be_activated(image: bytes) -> None:
    async def scenario() -> None:
        async with in_ota() as module:
            with Host() as host:
                assert (await host.upload(image)).endswith("Could Not Activate The Firmware\r\n")
                assert module.uploads == 0

    asyncio.run(scenario())


def test_a_byte_more_than_the_size_is_not_enough_space() -> None:
    async def scenario() -> None:
        async with in_ota():
            with Host() as host:
                sock = await host.invited(size=3000)
                await push(sock, IMAGE[:3001])
                assert "Not Enough Space\r\n" in await listen(sock)
                sock.close()

    asyncio.run(scenario())


def test_success_ends_with_ok_and_a_restart_into_the_new_image() -> None:
    async def scenario() -> None:
        async with in_ota() as module:
            with Host() as host:
                assert (await host.upload()).endswith("OK")
                assert module.uploads == 1
                await module.until(lambda: module.version == "1.1.0")
                assert (module.running, module.state.value) == (IMAGE, "running")
                assert await host.ask(host.invitation(), 0.2) is None

    asyncio.run(scenario())


def test_file_system_upload_does_not_change_the_application() -> None:
    async def scenario() -> None:
        async with in_ota() as module:
            with Host() as host:
                assert (await host.upload(b"files" * 1000, command=100)).endswith("OK")
                await module.until(lambda: module.state.value == "running")
                assert module.version == "0.9.0"

    asyncio.run(scenario())


def test_host_that_never_reads_is_not_waited_for() -> None:
    async def scenario() -> None:
        async with in_ota() as module:
            with Host() as host:
                sock = await host.invited()
                await push(sock, IMAGE)
                await module.until(lambda: module.uploads == 1)
                assert await listen(sock) != ""
                sock.close()

    asyncio.run(scenario())


# faults


def test_lost_invitations_and_answers_are_lost() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(lose_invitations=2)) as module:
            with Host() as host:
                assert await host.ask(host.invitation(), 0.15) is None
                assert await host.ask(host.invitation(), 0.15) is None
                assert await host.ask(host.invitation()) == "OK"
            assert module.attempts == 1
        async with in_ota(Faults(lose_answers=1)):
            with Host() as host:
                assert await host.ask(host.invitation(), 0.15) is None
                assert await host.connection()

    asyncio.run(scenario())


def test_answers_and_connections_can_come_from_another_address() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(answer_from=OTHER, connect_from=OTHER)):
            with Host() as host:
                host.send(host.invitation())
                assert await host.answer() == ("OK", OTHER)
                found = await host.connection()
                assert found and found[1] == OTHER

    asyncio.run(scenario())


def test_never_connecting_takes_three_seconds_and_it_can_be_invited_again() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(never_connects=True)) as module:
            with Host() as host:
                begun = time.monotonic()
                assert await host.ask(host.invitation()) == "OK"
                await module.until(lambda: module.state.value == "ota")
                assert 2.8 < time.monotonic() - begun < 5
                module.set_faults(Faults())
                assert (await host.upload()).endswith("OK")

    asyncio.run(scenario())


def test_connecting_late_is_late() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(connects_late=0.4)):
            with Host() as host:
                assert await host.ask(host.invitation()) == "OK"
                assert await host.connection(0.2) is None
                assert await host.connection(1)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("faults", "ends"),
    [
        (Faults(reset_at=8000), r"[0-9]*RESET"),
        (Faults(close_at=8000), r"[0-9]*(RESET)?"),
        (Faults(error_text="Flash Write Failed"), "[0-9]*Flash Write Failed\r\n(RESET)?"),
        (Faults(error_text="Decryption error"), "[0-9]*Decryption error\r\n"),
        (Faults(error_text="No Error", error_at=9000), "[0-9]*No Error\r\n(RESET)?"),
    ],
)
def test_fault_ends_the_upload_and_leaves_it_ready(faults: Faults, ends: str) -> None:
    async def scenario() -> None:
        async with in_ota(faults) as module:
            with Host() as host:
                assert re.fullmatch(ends, await host.upload())
                assert (module.uploads, module.state.value) == (0, "ota")
                module.set_faults(Faults())
                assert (await host.upload()).endswith("OK")

    asyncio.run(scenario())


def test_stall_takes_nothing_more_until_the_host_gives_up() -> None:
    async def scenario() -> None:
        image = make_image(size=200_000, version="1.1.0")
        async with in_ota(Faults(stall_at=8000)) as module:
            with Host() as host:
                sock = await host.invited(image)
                sending = asyncio.create_task(push(sock, image))
                await asyncio.sleep(0.4)
                assert (sending.done(), module.state.value) == (False, "updating")
                sending.cancel()
                reset(sock)
                await module.until(lambda: module.state.value == "ota")

    asyncio.run(scenario())


def test_no_final_ok_still_installs() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(no_final_ok=True)) as module:
            with Host() as host:
                assert "OK" not in await host.upload()
                await module.until(lambda: module.version == "1.1.0")

    asyncio.run(scenario())


def test_refused_password_is_refused_though_right() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(refuse_password=True), auth="md5", password="secret"):
            with Host() as host:
                answer = str(await host.ask(host.invitation()))
                response = expected_response("md5", "secret", answer[5:], "5" * 32)
                assert await host.ask(f"200 {'5' * 32} {response}\n".encode()) == "Authentication Failed"

    asyncio.run(scenario())


def test_core_1_0_crashes_on_a_datagram_without_line_end() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(crash_without_newline=True)) as module:
            with Host() as host:
                assert await host.ask(host.invitation()[:-1], 0.2) is None
                await module.until(lambda: module.state.value == "running")
                assert module.attempts == 0

    asyncio.run(scenario())


def test_faults_for_a_version_spare_other_versions_and_faults_for_n_times_end() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(error_text="Aborted", for_version="1.2.0")):
            with Host() as host:
                assert (await host.upload()).endswith("OK")
        async with in_ota(Faults(error_text="Aborted", times=1)):
            with Host() as host:
                assert (await host.upload()).endswith("Aborted\r\n")
                assert (await host.upload()).endswith("OK")

    asyncio.run(scenario())


def test_stall_for_a_while_goes_on_afterwards() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(stall_at=8000, stall_for=0.3)):
            with Host() as host:
                begun = time.monotonic()
                assert (await host.upload()).endswith("OK")
                assert time.monotonic() - begun >= 0.3

    asyncio.run(scenario())


def test_late_ok_is_late_and_the_numbers_come_in_time() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(late_ok=0.4)) as module:
            with Host() as host:
                sock = await host.invited()
                await push(sock, IMAGE)
                with pytest.raises(TimeoutError):
                    await listen(sock, 0.2)
                assert module.uploads == 0
                assert (await listen(sock)).endswith("OK")
                sock.close()

    asyncio.run(scenario())


def test_half_a_close_counts_before_bytes_that_are_still_unread() -> None:
    async def scenario() -> None:
        async with in_ota(flash_rate=20_000) as module:  # the first sector takes 0.2 s
            with Host() as host:
                sock = await host.invited()
                await push(sock, IMAGE[:5000])
                said = (await asyncio.get_running_loop().sock_recv(sock, 4)).decode()
                sock.shutdown(socket.SHUT_WR)
                assert said + await listen(sock, 0.9) == "1460" * 3 + "RESET"
                assert module.uploads == 0
                sock.close()

    asyncio.run(scenario())
