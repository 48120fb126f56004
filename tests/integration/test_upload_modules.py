"""`espota_upload` and `http_ota_upload` as users run them: by Ansible, against emulated modules."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import typing as t

import pytest

from tests.integration.addresses import own_address
from virtual_rv.image import make_image
from virtual_rv.module import EmulatedModule, Faults, ModuleSettings, State

ROOT = pathlib.Path(__file__).resolve().parents[2]
ADDRESS = own_address(6, 11)
HOSTNAME = "esp32-8F56D8"
IMAGE = make_image(size=40_000, version="1.1.0")
TRANSPORTS = {"espota": ("espota_upload", 3_232), "http": ("http_ota_upload", 8_080)}
SECRET = "s3cret-of-the-module"


def run(module: str, arguments: dict[str, t.Any], *flags: str) -> tuple[int, dict[str, t.Any], str]:
    """Exit status, result and whole output of ``ansible -m <module>`` on this machine."""
    command = [
        str(pathlib.Path(sys.executable).parent / "ansible"),
        *("localhost", "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"),
        *("-m", f"trailcurrent.fleet.{module}", "-a", json.dumps(arguments), *flags),
    ]
    ours = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"}
    environment = os.environ | ours | {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout.split("=> ", 1)[1]), done.stdout + done.stderr


@contextlib.contextmanager
def in_ota_mode(ota: str, faults: Faults | None = None, **settings: t.Any) -> collections.abc.Iterator[EmulatedModule]:
    """A module that waits for its upload, in a thread of its own."""
    board = ModuleSettings(
        hostname=HOSTNAME,
        address=ADDRESS,
        ota=ota,
        port=TRANSPORTS[ota][1],
        flash_rate=None,
        boot_time=0.05,
        **settings,
    )
    ready: threading.Event = threading.Event()
    loop = asyncio.new_event_loop()
    module = EmulatedModule(board, faults=faults or Faults())
    ended = asyncio.Event()

    async def serve() -> None:
        async with module:
            module.enter_ota()
            await module.until(lambda: module.state is State.OTA)
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10.0)
        yield module
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


@pytest.fixture
def firmware(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "firmware.bin"
    path.write_bytes(IMAGE)
    return path


def options(ota: str, firmware: pathlib.Path, **more: t.Any) -> dict[str, t.Any]:
    return {"hostname": HOSTNAME, "address": ADDRESS, "port": TRANSPORTS[ota][1], "firmware": str(firmware)} | more


@pytest.mark.parametrize("ota", TRANSPORTS)
def test_upload_returns_what_the_design_fixes(ota: str, firmware: pathlib.Path) -> None:
    with in_ota_mode(ota) as module:
        status, result, output = run(TRANSPORTS[ota][0], options(ota, firmware))
        assert status == 0, output
        assert module.uploads == 1
    assert result["changed"]
    assert (result["bytes"], result["attempts"], result["address"]) == (len(IMAGE), 1, ADDRESS)
    assert result["host_address"] == "127.0.0.1"
    assert result["sha256"] == hashlib.sha256(IMAGE).hexdigest()
    assert result["version"] == "1.1.0"
    assert 0 < result["seconds"] < 60


@pytest.mark.parametrize("ota", TRANSPORTS)
def test_check_mode_resolves_nothing_and_sends_nothing(ota: str, firmware: pathlib.Path) -> None:
    arguments = options(ota, firmware) | {"address": "a-name-that-nobody-knows.invalid"}
    status, result, output = run(TRANSPORTS[ota][0], arguments, "--check")
    assert status == 0, output
    assert result["changed"]
    assert result["msg"] == "Would upload 40,000 bytes to esp32-8F56D8."
    assert result["sha256"] == hashlib.sha256(IMAGE).hexdigest()


@pytest.mark.parametrize("ota", TRANSPORTS)
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (None, "image_missing"),
        (b"", "image_empty"),
        (IMAGE[:1_000], "image_truncated"),
        (b"\x7fELF" + IMAGE[4:], "image_magic"),
        (IMAGE[:20_000] + bytes([IMAGE[20_000] ^ 1]) + IMAGE[20_001:], None),
    ],
    ids=["missing", "empty", "truncated", "magic", "one bit flipped"],
)
def test_broken_image_is_refused_before_anything_is_sent(
    ota: str, data: bytes | None, code: str | None, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "firmware.bin"
    if data is not None:
        path.write_bytes(data)
    with in_ota_mode(ota) as module:
        status, result, _ = run(TRANSPORTS[ota][0], options(ota, path))
        assert module.attempts == 0
    assert status != 0
    assert result["code"] == code if code else result["code"] in ("image_checksum", "image_digest")
    assert str(path) in result["msg"]


def test_password_is_used_and_never_shown(firmware: pathlib.Path) -> None:
    with in_ota_mode("espota", auth="sha256", password=SECRET) as module:
        status, _, output = run("espota_upload", options("espota", firmware, password=SECRET), "-vvv")
        assert status == 0, output
        assert module.uploads == 1
    assert SECRET not in output


def test_wrong_password_is_a_sentence_with_a_code(firmware: pathlib.Path) -> None:
    with in_ota_mode("espota", auth="md5", password=SECRET):
        status, result, output = run("espota_upload", options("espota", firmware, password="wr0ng-one"))
    assert status != 0
    assert result["code"] == "wrong_password"
    assert HOSTNAME in result["msg"]
    assert "wr0ng-one" not in output


def test_what_the_module_said_is_returned(firmware: pathlib.Path) -> None:
    with in_ota_mode("espota", Faults(error_text="Not Enough Space")):
        _, result, _ = run("espota_upload", options("espota", firmware))
    assert (result["code"], result["device_message"]) == ("no_space", "Not Enough Space")
    with in_ota_mode("http", Faults(error_text="OTA end failed")):
        _, result, _ = run("http_ota_upload", options("http", firmware))
    assert (result["code"], result["device_message"]) == ("image_rejected", "OTA end failed")


@pytest.mark.parametrize("ota", TRANSPORTS)
def test_absent_module_costs_its_own_time(ota: str, firmware: pathlib.Path) -> None:
    status, result, _ = run(TRANSPORTS[ota][0], options(ota, firmware, ready_timeout=1.0))
    assert status != 0
    assert result["code"] == "no_answer"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"hostname": "esp32-TESTID"}, "invalid_hostname"),
        ({"host_ports": "60000-10000"}, "invalid_option"),
        ({"host_ip": "here"}, "invalid_option"),
        ({"address": "300.1.2.3"}, "invalid_option"),
    ],
)
def test_option_that_cannot_be_used_is_named(change: dict[str, str], code: str, firmware: pathlib.Path) -> None:
    status, result, _ = run("espota_upload", options("espota", firmware) | change)
    assert status != 0
    assert result["code"] == code
