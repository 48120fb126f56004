"""How the RV's computer is, as its own programs say it."""

from __future__ import annotations

import calendar
import json
import pathlib
import subprocess
import time
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import host_status

END = calendar.timegm((2031, 5, 4, 3, 2, 1))
CERTIFICATE = [
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
    *("-subj", "/CN=rv1", "-days", "10"),
]


def says(stdout: str, returncode: int = 0) -> t.Any:
    return lambda command: subprocess.CompletedProcess(command, returncode, stdout, "")


def missing(command: list[str]) -> t.NoReturn:
    raise FileNotFoundError(command[0])


def hangs(command: list[str]) -> t.NoReturn:
    raise subprocess.TimeoutExpired(command, 1)


def test_unit_that_is_not_there_is_told_from_one_that_failed() -> None:
    shown = "LoadState=loaded\nActiveState=failed\n\nLoadState=not-found\nActiveState=inactive\n"
    assert host_status.services(["a.service", "b.service"], says(shown)) == {
        "a.service": "failed",
        "b.service": "absent",
    }


@pytest.mark.parametrize("run", [missing, hangs, says("", 1)])
def test_host_that_cannot_be_asked_is_unknown_and_no_error(run: t.Any) -> None:
    assert host_status.services(["a.service"], run) == {"a.service": "unknown"}
    assert host_status.containers(run) == {}
    assert host_status.days_left(pathlib.Path("/nowhere"), 0, run) is None


def container(service: str, state: str, status: str) -> str:
    labels = f"com.docker.compose.project=trailcurrent,com.docker.compose.service={service},other"
    return json.dumps({"Labels": labels, "State": state, "Status": status})


def test_container_that_is_unhealthy_or_has_ended_is_shown_as_that() -> None:
    lines = [
        container("tileserver", "running", "Up 3 minutes (unhealthy)"),
        container("mosquitto", "exited", "Exited (1) 2 minutes ago"),
        container("backend", "running", "Up 3 minutes"),
        "no JSON",
        "[]",
        json.dumps({"Labels": "", "State": "running"}),
    ]
    assert host_status.containers(says("\n".join(lines))) == {
        "backend": "active",
        "mosquitto": "exited",
        "tileserver": "unhealthy",
    }


def test_days_of_a_certificate_are_those_that_openssl_gave_it(tmp_path: pathlib.Path) -> None:
    now = time.time()
    certificate = tmp_path / "server.crt"
    subprocess.run(
        [*CERTIFICATE, "-keyout", str(tmp_path / "key"), "-out", str(certificate)], check=True, capture_output=True
    )
    assert host_status.days_left(certificate, now) == 9
    assert host_status.days_left(certificate, now + 11 * host_status.DAY) == -2
    certificate.write_text("no certificate")
    assert host_status.days_left(certificate, now) is None


def test_disk_of_a_folder_that_is_not_there_is_unknown(tmp_path: pathlib.Path) -> None:
    assert host_status.disk_free(tmp_path / "nowhere") is None
    free = host_status.disk_free(tmp_path)
    assert free is not None
    assert free > 0


def test_clock_before_the_collection_was_made_is_wrong() -> None:
    assert host_status.clock_state(0) == "wrong"
    assert host_status.clock_state(END) in {"set", "running"}
