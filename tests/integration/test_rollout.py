"""Rollouts over real sockets, a real broker and the real bridge: every fault of the field, and what is said of it."""

from __future__ import annotations

import collections.abc
import pathlib
import random
import signal
import socket
import subprocess
import threading
import time
import typing as t

import pytest

from tests.integration.broker import Mosquitto
from tests.integration.rv import Rv, brief
from virtual_rv.module import Faults, State

OK = ("updated", None, "version")


@pytest.fixture
def rv(tmp_path: pathlib.Path, mosquitto: Mosquitto) -> collections.abc.Iterator[Rv]:
    with Rv(tmp_path, mosquitto) as running:
        yield running


def test_both_transports_known_and_found_out_are_updated_and_the_second_run_sends_nothing(rv: Rv) -> None:
    rv.add()
    rv.add(ota="http")
    rv.add(known_ota=False, password="pässword", auth="sha256")
    rv.add(known_ota=False, ota="http")
    rv.add(password="secret", auth="md5")
    rv.add(password="secret", auth="sha256_md5")
    rv.ship("gnss_module", "1.0.0")
    rv.await_versions()
    results = rv.roll_out()
    assert [brief(result) for result in results] == [OK] * 6
    assert all(result["host_address"].startswith("127.") for result in results)
    assert [(result["from_version"], result["to_version"]) for result in results] == [("0.9.0", "1.0.0")] * 6
    sent = [(board.triggers, board.attempts) for board in rv.boards.values()]
    assert [attempts for _triggers, attempts in sent] == [1] * 6
    again = rv.roll_out()
    assert [result["status"] for result in again] == ["up_to_date"] * 6
    assert [(board.triggers, board.attempts) for board in rv.boards.values()] == sent
    assert rv.record(rv.entries[3]["hostname"])["ota"] == "http"


# what goes wrong with a module that was proven to run 1.0.0, and what is said when it is offered 1.1.0
FAULTS: dict[str, tuple[Faults, dict[str, t.Any], tuple[str, str | None, str | None], str]] = {
    "absent": (Faults(absent=True), {}, ("not_reached", "no_answer", None), "check its power"),
    "absent_http": (Faults(absent=True), {"ota": "http"}, ("not_reached", "no_answer", None), "check its power"),
    "late": (Faults(absent_for=3.0), {}, OK, ""),
    "losing_invitations": (Faults(lose_invitations=3), {}, OK, ""),
    "losing_answers": (Faults(lose_answers=1), {}, OK, ""),
    "left_in_auth": (Faults(left_in_auth=True), {"password": "x", "auth": "md5"}, OK, ""),
    "never_connecting": (Faults(never_connects=True), {}, ("failed", "no_connection_back", None), "client isolation"),
    "stalled": (Faults(stall_at=20000), {}, ("failed", "upload_stalled", None), "no sign of life"),
    "stalled_once": (Faults(stall_at=20000, times=1), {}, OK, ""),
    "reset": (Faults(reset_at=20000), {}, ("failed", "upload_reset", None), "run"),
    "reset_once": (Faults(reset_at=20000, times=1), {}, OK, ""),
    "cut_http": (Faults(reset_at=20000), {"ota": "http"}, ("failed", "upload_reset", None), "half-open"),
    "refusing": (Faults(error_text="MD5 Check Failed"), {}, ("failed", "image_rejected", None), "MD5 Check Failed"),
    "refusing_http": (
        Faults(error_text="OTA end failed"),
        {"ota": "http"},
        ("failed", "image_rejected", None),
        "OTA end failed",
    ),
    "flash_broken": (
        Faults(error_text="Flash Write Failed"),
        {},
        ("failed", "flash_failed", None),
        "Flash Write Failed",
    ),
    "silent": (
        Faults(silent_after_boot=True, for_version="1.1.0"),
        {},
        ("rolled_back", "silent_after_boot", None),
        "1.0.0 is back",
    ),
    "silent_http": (
        Faults(silent_after_boot=True, for_version="1.1.0"),
        {"ota": "http"},
        ("rolled_back", "silent_after_boot", None),
        "1.0.0 is back",
    ),
    "back_by_itself": (Faults(boots="old"), {}, ("rolled_back", "old_version_after_boot", None), "by itself"),
    "strange": (
        Faults(reports="7.7.7", for_version="1.1.0"),
        {},
        ("rolled_back", "wrong_version_after_boot", None),
        "1.0.0 is back",
    ),
    "dead": (Faults(boots="nothing"), {}, ("failed", "lost", None), "could not be put back"),
    "answer_lost": (Faults(no_final_ok=True), {}, OK, ""),
    "answer_lost_http": (Faults(no_final_ok=True), {"ota": "http"}, OK, ""),
    "stale_report": (Faults(reports_while_updating=True), {}, OK, ""),
    "wrong_password": (
        Faults(refuse_password=True),
        {"password": "x", "auth": "sha256"},
        ("failed", "wrong_password", None),
        "password",
    ),
}


def test_every_fault_is_told_for_what_it_is_and_none_disturbs_another(rv: Rv) -> None:
    names = {rv.add(**settings): name for name, (_faults, settings, _expected, _words) in FAULTS.items()}
    rv.ship("gnss_module", "1.0.0")
    assert {brief(result) for result in rv.roll_out(parallel=32)} == {OK}
    for hostname, name in names.items():
        rv.call(_set_faults(rv, hostname, FAULTS[name][0]))
    rv.ship("gnss_module", "1.1.0")
    results = {names[result["hostname"]]: result for result in rv.roll_out(parallel=32)}
    assert {name: brief(result) for name, result in results.items()} == {name: row[2] for name, row in FAULTS.items()}
    for name, (_faults, _settings, expected, words) in FAULTS.items():
        error = results[name]["error"]
        assert (error is None) == (expected == OK), name
        assert words in (error or ""), name
    old = {hostname for hostname, name in names.items() if FAULTS[name][2] != OK and name != "dead"}
    running = {hostname: board.version for hostname, board in rv.boards.items() if names[hostname] != "dead"}
    assert running == {hostname: "1.0.0" if hostname in old else "1.1.0" for hostname in running}


async def _set_faults(rv: Rv, hostname: str, faults: Faults) -> None:
    rv.boards[hostname].set_faults(faults)


def test_link_faults_are_tried_again_by_the_next_run_and_image_faults_are_held_back(rv: Rv) -> None:
    absent = rv.add(faults=Faults(absent=True))
    refusing = rv.add(faults=Faults(error_text="MD5 Check Failed"))
    rv.ship("gnss_module", "1.0.0")
    assert [brief(result)[:2] for result in rv.roll_out(ready_timeout=2.0)] == [
        ("not_reached", "no_answer"),
        ("failed", "image_rejected"),
    ]
    for hostname in (absent, refusing):
        rv.call(_set_faults(rv, hostname, Faults()))
        rv.call(rv.boards[hostname].power_cycle())
    results = rv.roll_out()
    assert [brief(result)[:2] for result in results] == [("updated", None), ("held_back", "held_image")]
    assert "MD5 Check Failed" in results[1]["error"]
    assert [result["status"] for result in rv.roll_out(force=True)] == ["updated", "updated"]


def test_stranger_at_the_upload_port_is_turned_away(rv: Rv) -> None:
    rv.add(faults=Faults(connects_late=1.5))
    rv.ship("gnss_module", "1.0.0")
    port = _free_port()
    stopped = threading.Event()
    turned_away: list[bytes] = []

    def intrude() -> None:
        while not stopped.is_set():
            try:
                with socket.create_connection(
                    ("127.0.0.1", port), timeout=1, source_address=("127.0.0.99", 0)
                ) as stranger:
                    turned_away.append(_received(stranger))
            except OSError:
                time.sleep(0.02)

    thread = threading.Thread(target=intrude)
    thread.start()
    try:
        result = rv.roll_out(host_ports=f"{port}-{port}", host_ip="127.0.0.1")[0]
    finally:
        stopped.set()
        thread.join()
    assert brief(result) == OK
    assert result["host_address"] == "127.0.0.1"
    assert set(turned_away) == {b""}


def _received(peer: socket.socket) -> bytes:
    try:
        return peer.recv(100)
    except ConnectionResetError:
        return b""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_absent_module_costs_its_own_time_out_beside_the_others(rv: Rv) -> None:
    rv.add(faults=Faults(absent=True))
    for _ in range(3):
        rv.add()
    rv.ship("gnss_module", "1.0.0")
    results = rv.roll_out(ready_timeout=4.0)
    assert [result["status"] for result in results] == ["not_reached", "updated", "updated", "updated"]
    assert 4.0 <= sum(results[0]["seconds"].values()) < 6.0
    assert all(sum(result["seconds"].values()) < 3.0 for result in results[1:])


def test_modules_with_an_address_of_their_own_get_their_own_image(rv: Rv) -> None:
    settings = {"type_": "shunt_gateway"}
    first, second = rv.add(addr=1, **settings), rv.add(addr=2, **settings)
    rv.add(addr=None, **settings)
    rv.add(addr=9, **settings)
    rv.ship("shunt_gateway", "1.0.1", addr=1)
    rv.ship("shunt_gateway", "1.0.2", addr=2)
    rv.ship("shunt_gateway", "9.9.9")
    results = rv.roll_out()
    assert [brief(result)[:2] for result in results] == [
        ("updated", None),
        ("updated", None),
        ("failed", "address_unknown"),
        ("failed", "address_unknown"),
    ]
    assert (rv.boards[first].version, rv.boards[second].version) == ("1.0.1", "1.0.2")
    assert [board.triggers for board in rv.boards.values()] == [1, 1, 0, 0]


def _flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[random.randrange(300, len(content) - 64)] ^= 0x10
    path.write_bytes(content)


IMAGES: dict[str, tuple[t.Callable[[pathlib.Path], object], str]] = {
    "air_quality_module": (lambda path: path.write_bytes(b""), "image_empty"),
    "eight_button_panel": (lambda path: path.write_bytes(path.read_bytes()[:1000]), "image_truncated"),
    "vehicle_leveler": (lambda path: path.write_bytes(b"\x7fELF" + path.read_bytes()[4:]), "image_magic"),
    "switchback_relay": (_flip, "image_checksum"),
    "cabinet_door_sensor": (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0"), "image_digest"),
}


def test_bad_image_touches_no_module_and_keeps_no_other_from_its_turn(rv: Rv) -> None:
    for type_, (spoil, _code) in IMAGES.items():
        rv.add(type_)
        spoil(rv.ship(type_, "1.0.0"))
    rv.add("gnss_module", chip="esp32c6", target="esp32c6")
    rv.ship("gnss_module", "1.0.0", chip="esp32")
    rv.add("mppt_can_gateway")
    rv.add("wall_mounted_display")
    rv.ship("wall_mounted_display", "1.0.0")
    results = rv.roll_out()
    codes = [result["code"] for result in results]
    assert codes[:3] == ["image_empty", "image_truncated", "image_magic"]
    assert codes[3] in {"image_checksum", "image_digest"}
    assert codes[4:] == ["image_digest", "wrong_chip", "no_image", None]
    assert [result["status"] for result in results] == ["failed"] * 6 + ["skipped", "updated"]
    assert [board.triggers for board in rv.boards.values()] == [0] * 7 + [1]
    assert all("firmware.bin" in result["error"] for result in results[:6])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"hostname": "esp32-TESTID"}, "invalid_hostname"),
        ({"hostname": " esp32-8F56D8"}, "invalid_hostname"),
        ({"type": "../gnss_module"}, "invalid_type"),
        ({"hostname": "esp32-00000b"}, "duplicate_hostname"),
    ],
)
def test_bad_request_is_refused_before_anything_is_touched(rv: Rv, changes: dict[str, str], code: str) -> None:
    rv.add()
    rv.ship("gnss_module", "1.0.0")
    outcome = rv.process("run_here", modules=[*rv.entries, rv.entries[0] | changes])
    assert outcome["code"] == code
    assert [board.triggers for board in rv.boards.values()] == [0]
    assert not rv.state.exists()


def test_bridge_that_is_down_wakes_nobody_and_is_named(rv: Rv) -> None:
    rv.add()
    rv.ship("gnss_module", "1.0.0")
    rv.stop_bridge()
    result = rv.roll_out()[0]
    assert brief(result)[:2] == ("failed", "bridge_down")
    assert "systemctl status cantomqtt" in result["error"]
    rv.start_bridge()
    assert brief(rv.roll_out()[0]) == OK


def test_bus_that_is_off_wakes_nobody_and_is_named(rv: Rv) -> None:
    rv.add()
    rv.ship("gnss_module", "1.0.0")
    rv.stop_bridge()
    status = '{"state": "online", "bus_state": "bus_off", "since": 1767225600, "at": 1767225600, "counters": {}}'
    _publish(rv, "can/bridge/status", status)
    result = rv.roll_out()[0]
    assert brief(result)[:2] == ("failed", "bus_off")
    assert "ip -details link show can0" in result["error"]


def _publish(rv: Rv, topic: str, payload: str) -> None:
    subprocess.run([*rv.broker.tool("mosquitto_pub"), "-t", topic, "-m", payload, "-r", "-q", "1"], check=True)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"mqtt_password": "wrong"}, "broker_credentials"),
        ({"mqtt_url": "mqtts://127.23.0.1:1"}, "broker_refused"),
        ({"mqtt_ca_cert": "/etc/ssl/certs/ca-certificates.crt"}, "broker_untrusted"),
    ],
)
def test_broker_that_cannot_be_used_is_named_and_nothing_is_touched(rv: Rv, changes: dict[str, str], code: str) -> None:
    rv.add()
    rv.ship("gnss_module", "1.0.0")
    assert rv.process("run_here", **changes)["code"] == code
    assert [board.triggers for board in rv.boards.values()] == [0]


def test_broker_lost_in_the_middle_hides_no_proof(rv: Rv) -> None:
    hostname = rv.add(flash_rate=60_000)
    rv.ship("gnss_module", "1.0.0", size=200_000)
    process = rv.popen("run_here", boot_timeout=20.0)
    rv.until(hostname, lambda board: board.state is State.UPDATING)
    rv.broker.kill()
    rv.until(hostname, lambda board: board.version == "1.0.0")
    rv.broker.start()
    assert process.stdout is not None
    output = process.stdout.read()
    assert process.wait(60) == 0
    assert '"status": "updated"' in output
    assert '"proof": "version"' in output


@pytest.mark.parametrize("moment", ["waking", "uploading", "booting", "restoring"])
def test_run_killed_in_any_phase_is_finished_by_the_next(rv: Rv, moment: str) -> None:
    settings: dict[str, t.Any] = {"flash_rate": 60_000, "boot_time": 1.5, "ready_after": 0.7}
    hostname = rv.add(**settings)
    rv.ship("gnss_module", "1.0.0", size=100_000)
    assert brief(rv.roll_out(boot_timeout=8.0)[0]) == OK
    if moment == "restoring":
        rv.call(_set_faults(rv, hostname, Faults(silent_after_boot=True, for_version="1.1.0")))
    rv.ship("gnss_module", "1.1.0", size=100_000)
    process = rv.popen("run_here", boot_timeout=4.0)
    board = rv.boards[hostname]
    triggers, uploads = board.triggers, board.uploads
    moments: dict[str, t.Callable[[t.Any], bool]] = {
        "waking": lambda board: board.triggers > triggers,
        "uploading": lambda board: board.state is State.UPDATING,
        "booting": lambda board: board.uploads > uploads,
        "restoring": lambda board: board.version == "1.1.0" and board.state is State.UPDATING,
    }
    rv.until(hostname, moments[moment])
    process.send_signal(signal.SIGKILL)
    process.wait()
    if moment == "booting":
        rv.until(hostname, lambda board: board.version == "1.1.0")
        rv.await_versions()
    result = rv.roll_out(boot_timeout=4.0, ready_timeout=20.0)[0]
    if moment == "restoring":
        assert brief(result)[:2] == ("rolled_back", "silent_after_boot")
        assert board.version == "1.0.0"
        assert rv.roll_out()[0]["status"] == "held_back"
    else:
        assert brief(result) == OK
        assert board.version == "1.1.0"
        assert board.uploads == uploads + 1  # what was proven, or came through, is not uploaded twice
        assert rv.roll_out()[0]["status"] == "up_to_date"


def test_module_that_fell_back_later_is_shown_as_reverted(rv: Rv) -> None:
    hostname = rv.add(faults=Faults(reverts=True))
    rv.ship("gnss_module", "1.0.0")
    assert brief(rv.roll_out()[0]) == OK
    rv.call(rv.boards[hostname].power_cycle())
    rv.until(hostname, lambda board: board.version == "0.9.0")
    rv.await_versions()
    result = rv.roll_out()[0]
    assert brief(result)[:2] == ("reverted", "reverted")
    assert (result["from_version"], result["to_version"]) == ("0.9.0", "1.0.0")


def test_rv_with_an_old_bridge_is_served(tmp_path: pathlib.Path, mosquitto: Mosquitto) -> None:
    """An old bridge has neither a status nor versions: that is no failure."""
    with Rv(tmp_path, mosquitto, old_bridge=True) as rv:
        rv.add()
        rv.add(ota="http")
        rv.ship("gnss_module", "1.0.0")
        results = rv.roll_out()
        assert [brief(result) for result in results] == [OK] * 2
        assert [result["from_version"] for result in results] == [None] * 2
        assert {result["status"] for result in rv.roll_out()} == {"up_to_date"}


def test_precondition_on_the_bus_is_read_live(rv: Rv) -> None:
    rv.add()
    rv.ship("gnss_module", "1.0.0")
    condition = {"can_id": "0x123", "field": "0:2", "test": ">= 1220", "max_age": 2.0, "hint": "charge the battery"}
    assert rv.roll_out(preconditions=[condition])[0]["code"] == "precondition_unknown"
    stopped = threading.Event()
    level = [1190]

    def beat() -> None:
        while not stopped.wait(0.1):
            assert rv._bus is not None
            rv._loop.call_soon_threadsafe(rv._bus.send, 0x123, level[0].to_bytes(2, "big"))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        low = rv.roll_out(preconditions=[condition])[0]
        level[0] = 1240
        high = rv.roll_out(preconditions=[condition])[0]
    finally:
        stopped.set()
        thread.join()
    assert brief(low)[:2] == ("held_back", "precondition_failed")
    assert "charge the battery (saw 1190" in low["error"]
    assert brief(high) == OK


def test_check_mode_touches_neither_bus_nor_module_nor_disk(rv: Rv) -> None:
    rv.add()
    rv.ship("gnss_module", "1.0.0")
    rv.await_versions()
    results = rv.process("plan")["results"]
    assert [(r["status"], r["from_version"], r["to_version"]) for r in results] == [("would_update", "0.9.0", "1.0.0")]
    assert [board.triggers for board in rv.boards.values()] == [0]
    assert not rv.state.exists()


def test_disk_that_is_full_while_recording_is_told_and_wakes_nobody(rv: Rv, tmp_path: pathlib.Path) -> None:
    rv.add()
    rv.ship("gnss_module", "1.0.0")
    rv.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=40", "none", str(rv.state)], check=True)
    try:
        result = rv.roll_out()[0]
        assert brief(result)[:2] == ("failed", "state_unwritable")
        assert "No space left on device" in result["error"]
        assert [board.triggers for board in rv.boards.values()] == [0]
    finally:
        subprocess.run(["umount", str(rv.state)], check=True)
    assert brief(rv.roll_out()[0]) == OK
