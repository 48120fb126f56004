"""The espota link against faithful emulated modules, and against the faults of the field (ESPOTA.md, last section)."""

from __future__ import annotations

import asyncio
import collections.abc
import dataclasses
import hashlib
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import (
    FleetError,
    LinkError,
    RefusedError,
    UnknownOutcomeError,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import espota, espota_invite
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.transfer import Uploaded
from tests.integration.addresses import own_address
from virtual_rv.image import make_image
from virtual_rv.module import EmulatedModule, Faults, ModuleSettings, State

ADDRESS = own_address(2, 11)
ELSEWHERE = own_address(2, 99)
IMAGE = make_image(size=40_000, version="1.1.0")
SETTINGS = ModuleSettings(hostname="esp32-8F56D8", address=ADDRESS, flash_rate=None, boot_time=0.05)

Then = collections.abc.Callable[[EmulatedModule], collections.abc.Awaitable[None]]


@dataclasses.dataclass
class Outcome:
    """What an upload left behind."""

    module: EmulatedModule
    uploaded: Uploaded | None = None
    error: FleetError | None = None
    messages: list[str] = dataclasses.field(default_factory=list)
    progress: list[tuple[int, int]] = dataclasses.field(default_factory=list)

    def failed(self, family: type[FleetError], code: str) -> FleetError:
        assert self.error is not None
        assert (type(self.error), self.error.code) == (family, code), str(self.error)
        return self.error


def upload(
    faults: Faults = Faults(),  # noqa: B008
    image: bytes = IMAGE,
    *,
    then: Then | None = None,
    ready_timeout: float = 10.0,
    connect_timeout: float = 5.0,
    password: str | None = None,
    **settings: t.Any,
) -> Outcome:
    """Upload to one emulated module in OTA mode."""

    async def scenario() -> Outcome:
        board = dataclasses.replace(SETTINGS, password=password, **settings)
        async with EmulatedModule(board, faults=faults) as module:
            module.enter_ota()
            if not (faults.absent or faults.absent_for):
                await module.until(lambda: module.state is State.OTA)
            outcome = Outcome(module)
            try:
                outcome.uploaded = await attempt(outcome)
            except FleetError as error:
                outcome.error = error
            try:
                await (then or _nothing)(module)
            except TimeoutError:
                pytest.fail(f"{module.state}, {module.uploads} uploads, upload ended with {outcome.error}")
            return outcome

    async def attempt(outcome: Outcome) -> Uploaded:
        link = espota.EspotaUpload(
            "esp32-8F56D8",
            image,
            password=password,
            progress=lambda *step: outcome.progress.append(step),
            message=outcome.messages.append,
        )
        async with link:
            await link.invite(ADDRESS, ready_timeout)
            return await link.transfer(connect_timeout)

    return asyncio.run(scenario())


async def _nothing(_module: EmulatedModule) -> None:
    pass


async def runs_new_image(module: EmulatedModule) -> None:
    await module.until(lambda: module.running == IMAGE)


async def accepts_another_upload(module: EmulatedModule) -> None:
    """After a failure the module runs its old image, is idle, and can be invited at once."""
    assert module.uploads == 0
    module.set_faults(Faults())
    async with espota.EspotaUpload("esp32-8F56D8", IMAGE) as link:
        await link.invite(ADDRESS, 10.0)
        await link.transfer()
    await runs_new_image(module)


@pytest.mark.parametrize("flash_rate", [None, 400_000])
@pytest.mark.parametrize("delay", [0.0, 0.005])
def test_module_runs_what_it_was_sent(flash_rate: float | None, delay: float) -> None:
    outcome = upload(flash_rate=flash_rate, delay=delay, then=runs_new_image)
    assert outcome.uploaded is not None
    assert outcome.uploaded.sha256 == hashlib.sha256(IMAGE).hexdigest()
    assert outcome.progress[-1] == (len(IMAGE), len(IMAGE))
    assert outcome.messages == []


def test_newer_core_erases_long_blocks_without_a_stall() -> None:
    assert upload(flash_rate=200_000, erase_block=65_536, then=runs_new_image).error is None


@pytest.mark.parametrize("auth", ["md5", "sha256", "sha256_md5"])
def test_each_scheme_of_authentication(auth: str) -> None:
    assert upload(auth=auth, password="pass wörd", then=runs_new_image).error is None


@pytest.mark.parametrize("auth", ["md5", "sha256"])
def test_wrong_password_is_final_and_the_module_keeps_its_image(auth: str) -> None:
    outcome = upload(Faults(refuse_password=True), auth=auth, password="right")
    outcome.failed(RefusedError, "wrong_password")
    assert outcome.module.attempts == 0


def test_left_waiting_by_a_dead_host_costs_one_invitation() -> None:
    outcome = upload(Faults(left_in_auth=True), then=runs_new_image)
    assert outcome.uploaded is not None and outcome.uploaded.attempts == 2


def test_lost_invitations_cost_a_second_each() -> None:
    outcome = upload(Faults(lose_invitations=2), then=runs_new_image)
    assert outcome.uploaded is not None and outcome.uploaded.attempts == 3


@pytest.mark.parametrize("auth", ["none", "md5", "sha256"])
@pytest.mark.parametrize("lost", [1, 2])
def test_lost_answers_do_not_lose_the_upload(auth: str, lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espota_invite, "AUTH_ANSWER_WAIT", 1.0)
    password = None if auth == "none" else "secret"
    assert upload(Faults(lose_answers=lost), auth=auth, password=password, then=runs_new_image).error is None


def test_core_without_newline_handling_is_not_crashed() -> None:
    outcome = upload(Faults(crash_without_newline=True), auth="md5", password="secret", then=runs_new_image)
    assert outcome.error is None


def test_late_module_is_invited_until_it_is_there() -> None:
    assert upload(Faults(absent_for=1.5), then=runs_new_image).error is None


def test_absent_module_is_no_answer() -> None:
    upload(Faults(absent=True), ready_timeout=1.2).failed(LinkError, "no_answer")


def test_answers_from_another_address_are_not_taken() -> None:
    outcome = upload(Faults(answer_from=ELSEWHERE, never_connects=True), ready_timeout=1.2)
    assert ELSEWHERE in str(outcome.failed(LinkError, "no_answer"))


def test_late_connection_is_waited_for() -> None:
    assert upload(Faults(connects_late=1.5), then=runs_new_image).error is None


def test_no_connection_back() -> None:
    upload(Faults(never_connects=True), connect_timeout=1.0).failed(LinkError, "no_connection_back")


def test_partition_too_small_ends_without_a_word() -> None:
    error = upload(partition=16_384, connect_timeout=1.0).failed(LinkError, "no_connection_back")
    assert "partition holds 40,000 bytes" in str(error)


def test_connection_from_another_address_is_a_stranger() -> None:
    error = upload(Faults(connect_from=ELSEWHERE), connect_timeout=1.0).failed(LinkError, "no_connection_back")
    assert "1 connections from other addresses" in str(error)


@pytest.mark.parametrize(
    ("text", "code", "family"),
    [
        ("MD5 Check Failed", "image_rejected", RefusedError),
        ("Wrong Magic Byte", "image_rejected", RefusedError),
        ("Decryption error", "image_rejected", RefusedError),
        ("Could Not Activate The Firmware", "image_rejected", RefusedError),
        ("No Error", "image_rejected", RefusedError),
        ("Not Enough Space", "no_space", RefusedError),
        ("Flash Write Failed", "flash_failed", RefusedError),
        ("Flash Erase Failed", "flash_failed", RefusedError),
        ("Flash Read Failed", "flash_failed", RefusedError),
        ("Aborted", "upload_reset", LinkError),
    ],
)
@pytest.mark.parametrize("error_at", [None, 20_000])
def test_each_error_text_of_a_module(text: str, code: str, family: type[FleetError], error_at: int | None) -> None:
    outcome = upload(Faults(error_text=text, error_at=error_at), then=accepts_another_upload)
    assert outcome.failed(family, code).details["device_message"] == text
    assert outcome.messages == [text]


def test_image_for_another_chip_is_refused_by_the_module() -> None:
    outcome = upload(image=make_image(size=40_000, chip="esp32c6"), then=accepts_another_upload)
    outcome.failed(RefusedError, "image_rejected")


@pytest.mark.parametrize("faults", [Faults(reset_at=10_000), Faults(close_at=10_000)])
def test_connection_that_ends_in_the_middle(faults: Faults) -> None:
    outcome = upload(faults, image=make_image(size=200_000), then=accepts_another_upload)
    outcome.failed(LinkError, "upload_reset")


def test_stalled_module_is_told_apart_and_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espota, "STALL_LIMIT", 1.0)
    outcome = upload(Faults(stall_at=10_000), image=make_image(size=200_000), then=accepts_another_upload)
    outcome.failed(LinkError, "upload_stalled")


def test_pause_that_the_module_ends_by_itself_is_no_stall() -> None:
    assert upload(Faults(stall_at=10_000, stall_for=2.5), then=runs_new_image).error is None


def test_late_final_ok_is_waited_for() -> None:
    assert upload(Faults(late_ok=3.0), then=runs_new_image).error is None


def test_lost_final_ok_is_unknown_and_the_module_runs_the_new_image() -> None:
    outcome = upload(Faults(no_final_ok=True), then=runs_new_image)
    outcome.failed(UnknownOutcomeError, "outcome_unknown")


def test_cancelled_upload_leaves_a_module_that_takes_the_next_one() -> None:
    async def scenario() -> None:
        async with EmulatedModule(dataclasses.replace(SETTINGS, flash_rate=60_000.0)) as module:
            module.enter_ota()
            started = asyncio.Event()
            task = asyncio.create_task(one(lambda *_: started.set()))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await accepts_another_upload(module)

    async def one(progress: collections.abc.Callable[[int, int], None]) -> None:
        async with espota.EspotaUpload("esp32-8F56D8", IMAGE, progress=progress) as link:
            await link.invite(ADDRESS, 5.0)
            await link.transfer()

    asyncio.run(scenario())


def test_eight_uploads_at_once_disturb_each_other_not() -> None:
    async def one(number: int) -> bool:
        address = own_address(2, 20 + number)
        image = make_image(size=40_000, seed=number)
        settings = dataclasses.replace(SETTINGS, hostname=f"esp32-0000{number:02x}", address=address)
        async with EmulatedModule(settings) as module:
            module.enter_ota()
            async with espota.EspotaUpload(settings.hostname, image) as link:
                await link.invite(address, 10.0)
                await link.transfer()
            await module.until(lambda: module.running == image)
            return True

    async def scenario() -> list[bool]:
        return await asyncio.gather(*(one(number) for number in range(8)))

    assert asyncio.run(scenario()) == [True] * 8
