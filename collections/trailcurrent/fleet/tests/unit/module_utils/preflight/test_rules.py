"""What keeps a host from being set up is named, all of it at once."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import CODES
from ansible_collections.trailcurrent.fleet.plugins.module_utils.preflight.rules import (
    FREE_DISK,
    Host,
    Wanted,
    problems,
)

PI = Host("debian", "13", "Debian GNU/Linux 13 (trixie)", "aarch64", 64, (3, 13), "systemd", True, False, 8 * FREE_DISK)
RV = Wanted("trailcurrent01", "trailcurrent")


def codes(wanted: Wanted = RV, **seen: t.Any) -> list[str]:
    return [problem.code for problem in problems("rv1", wanted, dataclasses.replace(PI, **seen))]


@pytest.mark.parametrize("release", ["12", "13"])
def test_fresh_pi_is_taken(release: str) -> None:
    assert codes(release=release) == []


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"bits": 32, "machine": "armv7l", "system": "raspbian"}, "32-bit, armv7l"),
        ({"bits": 32}, "32-bit, aarch64"),
        ({"machine": "riscv64"}, "riscv64"),
        ({"system": "ubuntu", "release": "24.04", "label": "Ubuntu 24.04"}, "Ubuntu 24.04"),
        ({"release": "11"}, "does not know"),
        ({"release": ""}, "does not know"),
        ({"python": (3, 9)}, "Python 3.9"),
        ({"init": "sh"}, "sh as process 1"),
    ],
)
def test_foreign_system_is_refused_by_what_was_seen(seen: dict[str, t.Any], said: str) -> None:
    (problem,) = problems("rv1", RV, dataclasses.replace(PI, **seen))
    assert problem.code == "os_unsupported"
    assert said in problem.sentence
    assert "64-bit Raspberry Pi OS Lite" in problem.sentence


@pytest.mark.parametrize(
    "hostname", ["", "RV1", "rv1.local", "-rv", "rv-", "a" * 64, "räv", "rv 1", "rv_1", "rv1\n", "$(reboot)"]
)
def test_hostname_that_cannot_work_is_refused(hostname: str) -> None:
    assert codes(Wanted(hostname, "trailcurrent")) == ["inventory_invalid"]


@pytest.mark.parametrize("user", ["", "0pi", "a" * 33, "pi;", "Pi", "pi\n"])
def test_user_that_cannot_work_is_refused(user: str) -> None:
    assert codes(Wanted("rv1", user)) == ["inventory_invalid"]


def test_host_without_root_or_room_is_refused_for_both_at_once() -> None:
    assert codes(is_root=False, free=FREE_DISK - 1) == ["sudo_missing", "disk_full"]


def test_host_that_is_set_up_needs_no_room_for_it() -> None:
    assert codes(is_set_up=True, free=0) == []


@given(st.text(), st.text(), st.integers(min_value=0))
def test_whatever_is_seen_ends_in_known_codes_and_one_line(hostname: str, label: str, free: int) -> None:
    for problem in problems(
        "rv1", Wanted(hostname, "pi"), dataclasses.replace(PI, label=label, system=label, free=free)
    ):
        assert problem.code in CODES
        assert "\n" not in problem.sentence
