"""A bundle's deploy.sh, run as people and old watchers run it: what it accepts, refuses, and leaves behind."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle import trust
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import parse_manifest
from tests.integration.unpacked_release import (
    BUNDLE,
    FILES,
    REQUIRES,
    VERIFIED,
    Pi,
    deploy_script,
    make_key,
    refusal,
)

SHELLS = ["sh", "bash"]
ALONE = ["unshare", "--map-root-user", "--mount"]  # what is mounted there is seen by that process alone
SOON = 2_540_000_000  # 2050, in which this test's Pi has verified a release
FIRMWARE = "firmware/wired/gnss_module/firmware.bin"


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
    assert "its signature is by no key that" in refusal(pi.deploy())


def test_allowed_signers_that_cannot_be_used_trust_nobody(pi: Pi, key: pathlib.Path) -> None:
    pi.unpack(key=key)
    (pi.etc / "allowed_signers").mkdir()
    assert "its signature is by no key that" in refusal(pi.deploy())


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
    said = refusal(pi.deploy())
    assert "key has expired" in said
    assert "allow its key by set-up" in said


def test_key_whose_time_has_not_begun_is_named_as_a_problem_of_the_clock(pi: Pi, key: pathlib.Path) -> None:
    pi.unpack(key=key)
    pi.allow(key, options=',valid-after="20600101"')
    assert "set this Pi's clock" in refusal(pi.deploy())


def test_clock_that_is_behind_does_not_shut_out_a_key_that_this_pi_has_seen_in_use(pi: Pi, key: pathlib.Path) -> None:
    """The newest date that was verified here counts when it is later than the clock, which no NTP has set."""
    release = pi.unpack(key=key, released=SOON)
    pi.allow(key, options=',valid-after="20500101"')
    remember(trust.TrustRecord(pi.state, synced=lambda: False), (release / "manifest.json").read_bytes())
    pi.unpack(key=key, released=SOON, counter=2)
    assert "is signed by" in verified(pi, *alone("mount -t tmpfs tmpfs /run"))


def test_release_that_this_pi_has_verified_is_taken_when_its_key_is_expired(pi: Pi, key: pathlib.Path) -> None:
    release = pi.unpack(key=key)
    pi.allow(key, options=',valid-before="20010101"')
    record = trust.TrustRecord(pi.state)
    manifest = (release / "manifest.json").read_bytes()
    remember(record, manifest)
    assert "was verified before" in verified(pi)
    (release / "manifest.json").write_bytes(manifest + b"\n")
    assert "its signature is not one of its manifest" in refusal(pi.deploy())


def remember(record: trust.TrustRecord, manifest: bytes) -> None:
    """Have the record say that this Pi has verified the release."""
    parsed = parse_manifest(manifest, "the test's release")
    record.remember(parsed, hashlib.sha256(manifest).hexdigest(), "release@example.com", parsed.released)


def test_record_that_is_damaged_keeps_nothing_from_working(pi: Pi, key: pathlib.Path) -> None:
    pi.unpack(key=key)
    pi.allow(key)
    pi.state.mkdir()
    for content in ("", "[]", '{"newest_released": "x", "verified": 1}', "{"):
        (pi.state / "trust.json").write_text(content)
        verified(pi)


def test_build_date_that_differs_from_the_collections_is_found() -> None:
    assert f"BUILD_DATE = {trust.BUILD_DATE} " in (BUNDLE / "deploy.sh").read_text()


# --- a tree that is not the signed one ---


def change_byte(release: pathlib.Path) -> None:
    content = bytearray((release / FIRMWARE).read_bytes())
    content[-1] ^= 1
    (release / FIRMWARE).write_bytes(content)


def cut(release: pathlib.Path) -> None:
    (release / FIRMWARE).write_bytes((release / FIRMWARE).read_bytes()[:-1])


def lengthen(release: pathlib.Path) -> None:
    with (release / FIRMWARE).open("ab") as file:
        file.write(b"\0")


def remove(release: pathlib.Path) -> None:
    (release / FIRMWARE).unlink()


def link_file(release: pathlib.Path) -> None:
    (release / FIRMWARE).rename(release.parent / "same.bin")
    (release / FIRMWARE).symlink_to(release.parent / "same.bin")


def link_folder(release: pathlib.Path) -> None:
    (release / "firmware").rename(release.parent / "elsewhere")
    (release / "firmware").symlink_to(release.parent / "elsewhere")


def link_release(release: pathlib.Path) -> None:
    release.rename(release.parent / "elsewhere")
    release.symlink_to(release.parent / "elsewhere")


def pipe(release: pathlib.Path) -> None:
    remove(release)
    os.mkfifo(release / FIRMWARE)


def folder_for_file(release: pathlib.Path) -> None:
    remove(release)
    (release / FIRMWARE).mkdir()


def stray_wheel(release: pathlib.Path) -> None:
    (release / "wheels/one-1.0-1-py3-none-any.whl").write_bytes(b"a wheel that pip would like better")


def stray_link(release: pathlib.Path) -> None:
    (release / "wheels/two.whl").symlink_to("/nowhere")


def stray_odd_name(release: pathlib.Path) -> None:
    (release / "a\nb\udcff").write_bytes(b"")


def other_script(release: pathlib.Path) -> None:
    with (release.parent / "deploy.sh").open("a") as file:
        file.write("# one more line\n")


def manifest_link(release: pathlib.Path) -> None:
    (release / "manifest.json").rename(release.parent / "manifest.json")
    (release / "manifest.json").symlink_to("../manifest.json")


def no_manifest(release: pathlib.Path) -> None:
    (release / "manifest.json").unlink()


def changed_manifest(release: pathlib.Path) -> None:
    path = release / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"counter": 1', b'"counter": 2'))


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (change_byte, f"'{FIRMWARE}' is not the file that was signed"),
        (cut, f"'{FIRMWARE}' is not the file that was signed"),
        (lengthen, f"'{FIRMWARE}' is not the file that was signed"),
        (remove, f"'{FIRMWARE}' is missing"),
        (link_file, f"'{FIRMWARE}' is a link, or no regular file"),
        (link_folder, "'firmware' is a link, or no regular file"),
        (link_release, "is a link, or no folder"),
        (pipe, f"'{FIRMWARE}' is a link, or no regular file"),
        (folder_for_file, f"'{FIRMWARE}' is missing"),
        (stray_wheel, "'wheels/one-1.0-1-py3-none-any.whl' is in its folder, and not in its manifest"),
        (stray_link, "'wheels/two.whl' is a link"),
        (stray_odd_name, r"'a\nb\udcff' is in its folder"),
        (other_script, "'deploy.sh' is not the file that was signed"),
        (manifest_link, "'manifest.json' is a link"),
        (no_manifest, "it cannot be read ("),
        (changed_manifest, "its signature is not one of its manifest"),
    ],
)
def test_tree_that_is_not_the_signed_one_is_refused(
    pi: Pi, key: pathlib.Path, tamper, words: str, trusted: bool
) -> None:
    release = pi.unpack(key=key)
    if trusted:
        pi.allow(key)
    tamper(release)
    assert words in refusal(pi.deploy())
    assert not pi.state.exists()


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"format": 1, "version": "1.2.0", "files": [{}]}', b"null"],
)
def test_manifest_that_is_none_is_refused_in_a_sentence(pi: Pi, manifest: bytes) -> None:
    (pi.unpack() / "manifest.json").write_bytes(manifest)
    assert "it cannot be read (" in refusal(pi.deploy())


def test_manifest_that_names_files_elsewhere_is_refused(pi: Pi) -> None:
    release = pi.unpack()
    manifest = release / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"LICENSE"', b'"../LICENSE"'))
    (release / "LICENSE").rename(pi.home / "LICENSE")
    assert "'../LICENSE' is missing" in refusal(pi.deploy())


# --- a Pi that cannot ---


def alone(mounts: str) -> list[str]:
    """deploy.sh, seeing the system with these mounts over it."""
    return [*ALONE, "sh", "-ec", f"{mounts}\nexec sh deploy.sh"]


def test_missing_ssh_keygen_is_said_with_the_package(pi: Pi, key: pathlib.Path) -> None:
    pi.unpack(key=key)
    done = pi.deploy(*alone("mount --bind /dev/null /usr/bin/ssh-keygen"))
    assert "without ssh-keygen; install Debian's package openssh-client" in refusal(done)


def test_missing_venv_is_said_with_the_package(pi: Pi) -> None:
    pi.unpack()
    empty = pi.home.parent / "empty"
    empty.mkdir()
    found = subprocess.run(
        ["/usr/bin/python3", "-Ic", "import os, ensurepip; print(os.path.dirname(ensurepip.__file__))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    done = pi.deploy(*alone(f"mount --bind {empty} {found.stdout.strip()}"))
    assert "install Debian's package python3-venv" in refusal(done)


def test_missing_python_is_said_with_the_package(pi: Pi) -> None:
    pi.unpack()
    assert "install Debian's package python3" in refusal(pi.deploy(TRAILCURRENT_PYTHON="/nowhere/python3"))


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"python": ("3.99",)}, "it is for Python 3.99 on aarch64 or x86_64, and this is Python 3."),
        ({"architectures": ()}, "update this Pi's system"),
    ],
)
def test_pi_that_has_not_what_the_release_needs_is_told(pi: Pi, needs: dict[str, tuple[str, ...]], words: str) -> None:
    pi.unpack(requires=dataclasses.replace(REQUIRES, **needs))
    assert words in refusal(pi.deploy())


def test_full_disk_is_said_before_anything_is_written(pi: Pi) -> None:
    pi.unpack()
    pi.state.mkdir()
    done = pi.deploy(*alone(f"mount -t tmpfs -o size=4m tmpfs '{pi.state}'"))
    assert "has 4 MB free, and its Python needs 200; free some room there" in refusal(done)


def test_state_that_cannot_be_written_is_said(pi: Pi) -> None:
    locks = {f"wheels/requirements-{python}.lock": b"" for python in REQUIRES.python}
    pi.unpack(files={**FILES, **locks, "project/trailcurrent-fleet-1.0.0.tar.gz": b""})
    pi.state.write_text("a file")
    assert "cannot be written" in refusal(pi.deploy())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mounts", "state"),
    [
        ("mount -t tmpfs -o size=300m tmpfs /var/lib", "/var/lib/trailcurrent"),
        ("mount -t tmpfs tmpfs /var/lib; mount -o remount,ro /var/lib", "{home}/.local/state/trailcurrent"),
    ],
)
def test_state_lies_where_the_collection_keeps_it(pi: Pi, mounts: str, state: str) -> None:
    """As journal.default_state_dir; the wheels of this release are none, so pip says where it would install them."""
    locks = {f"wheels/requirements-{python}.lock": b"nothing==1.0\n" for python in REQUIRES.python}
    pi.unpack(files={**FILES, **locks, "project/trailcurrent-fleet-1.0.0.tar.gz": b""})
    said = refusal(pi.deploy(*alone(mounts), TRAILCURRENT_STATE_DIR=""))
    assert f"installed below {state.format(home=pi.home)}/deploy/1.2.0 (" in said
    assert "nothing==1.0" in said
    assert pi.left() == []
