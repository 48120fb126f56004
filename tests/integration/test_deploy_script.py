"""A bundle's deploy.sh, run as people and old watchers run it: what it accepts, refuses, and leaves behind."""

from __future__ import annotations

import collections.abc
import functools
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify import trust, verifier
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import clock
from tests.integration import unpacked_release as tampered
from tests.integration.unpacked_release import (
    BUNDLE,
    FILES,
    FIRMWARE,
    NAMESPACE,
    VERIFIED,
    Pi,
    alone,
    deploy_script,
    make_key,
    refusal,
    sign,
)

SHELLS = ["sh", "bash"]
SOON = 2_540_000_000  # 2050, in which this test's Pi has verified a release
DOUBT = "that is this machine's clock, which NTP has not set: if it is wrong, set it first"
CLOCK = """
import ctypes, time
class Kernel:
    def adjtimex(state):
        state[5] = {status}
        return 0
ctypes.CDLL = lambda _name: Kernel
time.time = lambda: {now}
"""
NTP_HAS_SET_IT, NOBODY_HAS_SET_IT = 0x2001, 0x2041  # adjtimex(2): the status, which no test may change


@pytest.fixture
def pi(tmp_path: pathlib.Path) -> Pi:
    return Pi(tmp_path)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return make_key(tmp_path_factory.mktemp("keys"))


def verified(pi: Pi, *command: str, **options: object) -> str:
    """What deploy.sh says of a release that it finds right."""
    done = pi.deploy(*command, **options)  # type: ignore[arg-type]
    assert VERIFIED in refusal(done)
    assert f"each of its {len(FILES)} files is the one in its manifest" in done.stdout
    return done.stdout


# --- how it is started ---


@pytest.mark.parametrize("shell", SHELLS)
def test_release_whose_modes_were_lost_is_verified_by_each_shell(pi: Pi, key: pathlib.Path, shell: str) -> None:
    pi.unpack(key=key)
    pi.allow(key)
    assert "is signed by release@example.com" in verified(pi, shell, "deploy.sh")


@pytest.mark.parametrize("shell", SHELLS)
def test_script_that_is_run_from_another_folder_finds_its_own_release(pi: Pi, key: pathlib.Path, shell: str) -> None:
    pi.unpack(key=key)
    away = pi.home.parent / "away"
    (away / "trailcurrent-release-1.2.0").mkdir(parents=True)
    verified(pi, shell, str(pi.home / "deploy.sh"), cwd=away)
    verified(pi, shell, "../home of pi/deploy.sh", cwd=away, CDPATH=str(pi.home))


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_empty_environment_keeps_nothing_from_working(pi: Pi, key: pathlib.Path, shell: str) -> None:
    pi.unpack(key=key)
    verified(pi, shell, "deploy.sh", environment={})


def test_closed_standard_input_is_not_waited_for(pi: Pi, key: pathlib.Path) -> None:
    pi.unpack(key=key)
    verified(pi, before="exec 0<&-")


def test_modules_that_lie_in_the_home_folder_are_not_run(pi: Pi, key: pathlib.Path) -> None:
    pi.unpack(key=key)
    for name in ("hashlib", "json", "sitecustomize", "usercustomize"):
        (pi.home / f"{name}.py").write_text("open('was-run', 'w')\n")
    verified(pi, PYTHONPATH=str(pi.home), PYTHONSTARTUP=str(pi.home / "json.py"))
    assert not (pi.home / "was-run").exists()


def test_older_release_beside_it_is_neither_looked_at_nor_used(pi: Pi, key: pathlib.Path) -> None:
    older = pi.unpack("1.1.0", key=key)
    (older / FIRMWARE).write_bytes(b"rotten")
    pi.unpack("1.2.0", key=key)
    verified(pi)
    pi.home.joinpath("deploy.sh").write_bytes(deploy_script("1.1.0"))
    assert f"Release 1.1.0 was not deployed: '{FIRMWARE}' is not the file" in refusal(pi.deploy())


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("way", ["cat deploy.sh | {}", "{} < deploy.sh", '{} -c "$(cat deploy.sh)"'])
def test_script_that_cannot_know_where_it_lies_says_so(pi: Pi, key: pathlib.Path, shell: str, way: str) -> None:
    pi.unpack(key=key)
    assert "run it as a file: sh deploy.sh" in refusal(pi.deploy("/bin/sh", "-c", way.format(shell)))


def test_programs_that_lie_in_the_home_folder_are_not_run(pi: Pi, key: pathlib.Path) -> None:
    pi.unpack(key=key)
    pi.allow(make_key(pi.home.parent, "another"))
    for name in ("ssh-keygen", "python3", "dirname"):
        (pi.home / name).write_text("#!/bin/sh\ntouch was-run\necho release@example.com\n")
        (pi.home / name).chmod(0o755)
    assert "does not allow the key" in refusal(pi.deploy(PATH=".:/usr/bin:/bin"))
    assert not (pi.home / "was-run").exists()


# --- whom it trusts ---


def test_release_without_signature_is_taken_only_where_nobody_asks_for_one(pi: Pi, key: pathlib.Path) -> None:
    pi.unpack()
    assert "has no signature; none is asked for" in verified(pi)
    pi.allow(key)
    assert "has no signature, and" in refusal(pi.deploy())


def test_first_use_is_said(pi: Pi, key: pathlib.Path) -> None:
    pi.unpack(key=key)
    said = verified(pi)
    assert "trusted on first use" in said
    assert "SHA256:" in said


def test_key_that_setup_does_not_know_is_refused(pi: Pi, key: pathlib.Path) -> None:
    pi.unpack(key=key)
    pi.allow(make_key(pi.home.parent, "another"))
    assert "does not allow the key SHA256:" in refusal(pi.deploy())


def is_folder(signers: pathlib.Path) -> None:
    signers.unlink()
    signers.mkdir()


def is_pipe(signers: pathlib.Path) -> None:
    signers.unlink()
    os.mkfifo(signers)


def is_link_to_nowhere(signers: pathlib.Path) -> None:
    signers.unlink()
    signers.symlink_to("/nowhere/allowed_signers")


def is_link(signers: pathlib.Path) -> None:
    signers.symlink_to(signers.rename(signers.with_name("real")))


def is_too_long(signers: pathlib.Path) -> None:
    os.truncate(signers, 1 << 20)


def is_in_a_locked_folder(signers: pathlib.Path) -> None:
    signers.parent.chmod(0)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("spoil", [is_folder, is_pipe, is_link, is_link_to_nowhere, is_too_long, is_in_a_locked_folder])
def test_allowed_signers_that_cannot_be_used_trust_nobody(
    pi: Pi, key: pathlib.Path, spoil: collections.abc.Callable[[pathlib.Path], None], signed: bool
) -> None:
    pi.unpack(key=key if signed else None)
    pi.allow(key)
    spoil(pi.etc / "allowed_signers")
    said = refusal(pi.deploy("unshare", "--user", "sh", "deploy.sh"))  # as nobody, whom modes concern
    assert f"{pi.etc}/allowed_signers cannot be used: " in said
    assert "make it a file, and no link, that this user can read" in said


@pytest.mark.parametrize(
    "lines",
    [
        'bär@x namespaces="{purpose}" {key}',
        'a@x namespaces="git" {key}b@x namespaces="{purpose}" {key}',
        'a@x valid-before="20010101" {key}b@x namespaces="{purpose}" {key}',
        '"a@x,b@x" namespaces="{purpose}" {key}',
    ],
)
def test_every_line_of_a_key_is_tried(pi: Pi, key: pathlib.Path, lines: str) -> None:
    pi.unpack(key=key)
    text = lines.format(purpose=NAMESPACE, key=key.with_suffix(".pub").read_text())
    (pi.etc / "allowed_signers").write_text(text)
    name = text.split()[0] if lines[0] == "b" else "a@x" if lines[0] == '"' else "b@x"
    assert f"is signed by {name};" in verified(pi)
    assert module_accepts(pi, pi.home / "trailcurrent-release-1.2.0")


@pytest.mark.parametrize("trusted", [True, False])
def test_signature_for_another_purpose_is_refused(pi: Pi, key: pathlib.Path, trusted: bool) -> None:
    pi.unpack(key=key, namespace="git")
    if trusted:
        pi.allow(key)
    assert "its signature is not one of its manifest" in refusal(pi.deploy())


@pytest.mark.parametrize("trusted", [True, False])
def test_signature_of_another_release_is_refused(pi: Pi, key: pathlib.Path, trusted: bool) -> None:
    other = pi.unpack("1.1.0", key=key)
    release = pi.unpack("1.2.0", key=key)
    shutil.copy(other / "manifest.json.sig", release)
    if trusted:
        pi.allow(key)
    assert "its signature is not one of its manifest" in refusal(pi.deploy())


def test_manifest_of_another_release_is_refused(pi: Pi, key: pathlib.Path) -> None:
    other, release = pi.unpack("1.1.0", key=key), pi.unpack("1.2.0", key=key)
    for name in ("manifest.json", "manifest.json.sig"):
        shutil.copy(other / name, release)
    assert "its manifest is that of '1.1.0'" in refusal(pi.deploy())


def test_expired_key_is_refused_whatever_the_clock_says(pi: Pi, key: pathlib.Path) -> None:
    """Valid until 2001: no Pi's clock is right that says less than the collection's build date."""
    pi.unpack(key=key)
    pi.allow(key, options=',valid-before="20010101"')
    said = refusal(pi.deploy(TRAILCURRENT_PYTHON=pi.python(CLOCK.format(status=NOBODY_HAS_SET_IT, now=0))))
    assert "(release@example.com, " in said
    assert "allowed_signers:1: key has expired: verify time 2026-11-23" in said
    assert "> valid-before 2001-01-01T00:00:00); allow it by set-up" in said
    assert DOUBT not in said


def test_key_whose_time_has_not_begun_is_named_as_a_problem_of_the_clock(pi: Pi, key: pathlib.Path) -> None:
    pi.unpack(key=key)
    pi.allow(key, options=',valid-after="20600101"')
    assert "set this Pi's clock" in refusal(pi.deploy())


@pytest.mark.parametrize(("status", "is_doubted"), [(NTP_HAS_SET_IT, False), (NOBODY_HAS_SET_IT, True)])
def test_clock_that_alone_makes_a_key_expired_is_named(
    pi: Pi, key: pathlib.Path, status: int, is_doubted: bool
) -> None:
    assert DOUBT in pathlib.Path(trust.__file__).read_text()
    pi.unpack(key=key)
    pi.allow(key, options=',valid-before="20300101"')
    wrong = pi.python(CLOCK.format(status=status, now=SOON))
    said = refusal(pi.deploy(*alone("mount -t tmpfs tmpfs /run"), TRAILCURRENT_PYTHON=wrong))
    assert "key has expired" in said
    assert (DOUBT in said) is is_doubted


@pytest.mark.parametrize(("status", "is_soon"), [(NTP_HAS_SET_IT, False), (NOBODY_HAS_SET_IT, True)])
def test_newest_verified_date_counts_fully_where_nobody_has_set_the_clock(
    pi: Pi, key: pathlib.Path, status: int, is_soon: bool
) -> None:
    """NTP's word is the kernel's here, as chrony's is: /run has no mark of systemd-timesyncd."""
    pi.unpack(key=key)
    pi.allow(key, options=f',valid-{"after" if is_soon else "before"}="20500101"')
    write_record(pi, newest_released=SOON)
    said = CLOCK.format(status=status, now=clock.BUILD_DATE)
    verified(pi, *alone("mount -t tmpfs tmpfs /run"), TRAILCURRENT_PYTHON=pi.python(said))


# --- what it has verified before ---


def write_record(pi: Pi, newest_released: object = 0, **verified: object) -> None:
    pi.state.mkdir(exist_ok=True)
    (pi.state / "trust.json").write_text(json.dumps({"newest_released": newest_released, "verified": verified}))


def known(release: pathlib.Path, key: pathlib.Path, **changes: object) -> dict[str, object]:
    """The record's word on a release that was verified in 2000."""
    shown = subprocess.run(["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True).stdout
    entry = {"version": "1.2.0", "released": 1, "principal": "a@x", "fingerprint": shown.split()[1], "at": 946_684_800}
    return {hashlib.sha256((release / "manifest.json").read_bytes()).hexdigest(): {**entry, **changes}}


EXPIRED = ',valid-before="20010101"'


def test_release_that_this_pi_has_verified_is_taken_when_its_key_is_expired(pi: Pi, key: pathlib.Path) -> None:
    release = pi.unpack(key=key)
    pi.allow(key, options=EXPIRED)
    write_record(pi, **known(release, key))
    assert module_accepts(pi, release), "the record is as bundle/verify/trust.py writes it"
    assert "was verified before, and is signed by release@example.com" in verified(pi)
    (release / "manifest.json").write_bytes((release / "manifest.json").read_bytes() + b"\n")
    assert "its signature is not one of its manifest" in refusal(pi.deploy())


def test_key_that_was_taken_out_takes_its_verified_releases_with_it(pi: Pi, key: pathlib.Path) -> None:
    release, other = pi.unpack(key=key), make_key(pi.home.parent, "another")
    write_record(pi, **known(release, key))
    pi.allow(other)
    assert "does not allow the key" in refusal(pi.deploy())
    public = key.with_suffix(".pub").read_text()
    (pi.etc / "allowed_signers").write_text(f'release@example.com namespaces="git" {public}')
    assert "is not permitted for use in signature namespace" in refusal(pi.deploy())


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": "SHA256:another"},
        {"fingerprint": None},
        {"principal": None},
        {"at": 1e999},
        {"at": -1},
        {"at": True},
        {"released": 1 << 62},
        {"version": 1},
        {"more": 1},
    ],
)
def test_record_that_vouches_for_nothing_moves_no_time(pi: Pi, key: pathlib.Path, changes: dict[str, object]) -> None:
    release = pi.unpack(key=key)
    pi.allow(key, options=EXPIRED)
    write_record(pi, **known(release, key, **changes))
    assert "key has expired" in refusal(pi.deploy())
    assert not module_accepts(pi, release)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", "null", "[" * 100_000, '{"newest_released": "x", "verified": 1}', " " * (1 << 20) + "{}"]
    + [f'{{"newest_released": {number}, "verified": {{}}}}' for number in ("1e999", 1 << 70, 1 << 62, 99999999999999)],
)
def test_record_that_is_damaged_counts_as_empty(pi: Pi, key: pathlib.Path, content: str) -> None:
    pi.unpack(key=key)
    pi.allow(key, options=',valid-before="29990101"')
    pi.state.mkdir()
    (pi.state / "trust.json").write_text(content)
    assert trust.TrustRecord(pi.state).damage
    verified(pi)


def test_build_date_that_differs_from_the_collections_is_found() -> None:
    assert f"BUILD_DATE = {clock.BUILD_DATE} " in (BUNDLE / "deploy.sh").read_text()


# --- a tree that is not the signed one ---


WORDS = {
    tampered.change_byte: f"'{FIRMWARE}' is not the file that was signed",
    tampered.cut: f"'{FIRMWARE}' is not the file that was signed",
    tampered.lengthen: f"'{FIRMWARE}' is not the file that was signed",
    tampered.remove: f"'{FIRMWARE}' is missing",
    tampered.link_file: f"'{FIRMWARE}' is a link, or no regular file",
    tampered.link_folder: "'firmware' is a link, or no regular file",
    tampered.pipe: f"'{FIRMWARE}' is a link, or no regular file",
    tampered.folder_for_file: f"'{FIRMWARE}/' is in its folder, and not in its manifest",
    tampered.stray_wheel: "'wheels/one-1.0-1-py3-none-any.whl' is in its folder, and not in its manifest",
    tampered.stray_link: "'wheels/two.whl' is a link",
    tampered.stray_folder: "'local_code/' is in its folder, and not in its manifest",
    tampered.stray_odd_name: r"'a\nb\udcff' is in its folder",
    tampered.manifest_link: "'manifest.json' is a link",
    tampered.no_manifest: "it cannot be read (",
    tampered.changed_manifest: "its signature is not one of its manifest",
    tampered.junk_behind_signature: "its signature is not one as ssh-keygen writes it",
    tampered.dos_lines_in_signature: "its signature is not one as ssh-keygen writes it",
    tampered.filled_reserved_field: "its signature is not one as ssh-keygen writes it",
    tampered.long_signature: "has more than 16384 bytes",
}
OWN_WORDS = {
    tampered.link_release: "is a link, or no folder",
    tampered.other_script: "'deploy.sh' is not the file that was signed",
}
"""What a module that is given a folder does not look at."""


def module_accepts(pi: Pi, release: pathlib.Path) -> bool:
    """What the playbook's own verification says of the same tree."""
    signers = pi.etc / "allowed_signers"
    judge = functools.partial(
        trust.judge,
        allowed_signers=signers,
        policy="required" if os.path.lexists(signers) else "if_present",
        record=trust.TrustRecord(pi.state),
        clock=time.time,
        synced=clock.clock_is_synced,
        subject="the test's release",
    )
    try:
        verifier.verify_folder(release, judge)
    except FleetError:
        return False
    return True


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("tamper", [*WORDS, *OWN_WORDS])
def test_tree_that_is_not_the_signed_one_is_refused(
    pi: Pi, key: pathlib.Path, tamper: collections.abc.Callable[[pathlib.Path], None], trusted: bool
) -> None:
    release = pi.unpack(key=key)
    if trusted:
        pi.allow(key)
    assert module_accepts(pi, release)
    tamper(release)
    assert {**WORDS, **OWN_WORDS}[tamper] in refusal(pi.deploy())
    assert not pi.state.exists()
    assert module_accepts(pi, release) == (tamper in OWN_WORDS)


def test_manifest_that_says_something_in_utf8_is_accepted(pi: Pi, key: pathlib.Path) -> None:
    release = pi.unpack(key=key)
    pi.allow(key)
    manifest = (release / "manifest.json").read_text().replace("{", '{\n "note": "für März",', 1).encode()
    (release / "manifest.json").write_bytes(manifest)
    (release / "manifest.json.sig").write_bytes(sign(manifest, key))
    assert module_accepts(pi, release)
    verified(pi)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"format": 1, "version": "1.2.0", "files": [{}]}',
        b"null",
        b" " * 9_000_000,
    ],
)
def test_manifest_that_is_none_is_refused_in_a_sentence(pi: Pi, manifest: bytes) -> None:
    release = pi.unpack()
    (release / "manifest.json").write_bytes(manifest)
    said = refusal(pi.deploy())
    assert "it cannot be read (" in said
    assert ("has more than 8388608 bytes" in said) is (len(manifest) > 8388608)
    assert not module_accepts(pi, release)


def test_manifest_that_names_files_elsewhere_is_refused(pi: Pi) -> None:
    release = pi.unpack()
    manifest = release / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"LICENSE"', b'"../LICENSE"'))
    (release / "LICENSE").rename(pi.home / "LICENSE")
    assert "'../LICENSE' is missing" in refusal(pi.deploy())
