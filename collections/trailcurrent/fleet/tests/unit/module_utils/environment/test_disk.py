"""Two files switched together, whatever happens on the way: a power cut, a full disk, somebody's links."""

from __future__ import annotations

import collections.abc
import os
import pathlib
import resource
import signal
import sys

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.environment.disk import NEXT, Owner, Pair
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError

OLD = ("A=old\n", "A=old\nP=1\n")
NEW = ("A=new\n", "A=new\nP=1\n")
MYSELF = Owner(os.getuid(), os.getgid())
CUT = 9
STEPS = {"open", "os.rename", "os.remove", "os.chmod", "os.chown", "os.mkdir", "os.fsync"}


@pytest.fixture
def pair(tmp_path: pathlib.Path) -> Pair:
    (tmp_path / "local_code").mkdir()
    return Pair(tmp_path)


def put(pair: Pair, texts: tuple[str, str]) -> None:
    for path, text in zip(pair.paths, texts, strict=True):
        path.write_text(text)


def contents(pair: Pair) -> tuple[str, ...]:
    return tuple(path.read_text() for path in pair.paths)


def cut_at(step: int, act: collections.abc.Callable[[], None]) -> bool:
    """Run ``act`` in a process that ends without a word before its ``step``-th access to the disk; whether it did."""
    child = os.fork()
    if child == 0:
        left, fsync = step, os.fsync

        def count(event: str, _: object) -> None:
            nonlocal left
            if event in STEPS:
                left -= 1
                if left < 0:
                    os._exit(CUT)

        def counted_fsync(handle: int) -> None:  # which has no audit event
            count("os.fsync", handle)
            fsync(handle)

        os.fsync = counted_fsync
        sys.addaudithook(count)
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == CUT


def test_power_cut_at_any_step_leaves_two_files_that_belong_together(pair: Pair) -> None:
    seen = set()
    for step in range(100):
        put(pair, OLD)
        if not cut_at(step, lambda: pair.write(NEW, MYSELF)):
            break
        read = pair.read()
        assert read in (OLD, NEW)
        seen.add((read, pair.was_cut()))
        for again in range(100):  # and the repair is cut at each of its own steps
            if not cut_at(again, pair.repair):
                break
            assert pair.read() == read
        assert contents(pair) == read
        assert not pair.was_cut()
    assert contents(pair) == NEW
    assert seen == {(OLD, False), (OLD, True), (NEW, True), (NEW, False)}


def test_half_written_file_of_a_cut_run_is_thrown_away(pair: Pair) -> None:
    put(pair, OLD)
    for path in pair.paths:
        path.with_name(path.name + NEXT).write_text("A=ne")
    assert pair.read() == OLD
    pair.write(NEW, MYSELF)
    assert contents(pair) == NEW


def test_first_files_come_with_their_folder_and_are_private(tmp_path: pathlib.Path) -> None:
    pair = Pair(tmp_path)
    assert pair.read() == ("", "")
    pair.write(NEW, MYSELF)
    assert contents(pair) == NEW
    assert pair.is_private(MYSELF)
    assert [path.stat().st_mode & 0o777 for path in pair.paths] == [0o600, 0o600]
    assert not pair.is_private(Owner(MYSELF.uid + 1, MYSELF.gid))


def test_files_that_others_can_read_are_closed(pair: Pair) -> None:
    put(pair, OLD)
    pair.paths[1].chmod(0o644)
    assert not pair.is_private(MYSELF)
    pair.make_private(MYSELF)
    assert pair.is_private(MYSELF)


def test_full_disk_leaves_the_old_files_and_is_named(pair: Pair) -> None:
    put(pair, OLD)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, limits[1]))
    try:
        with pytest.raises(FleetError) as caught:
            pair.write(NEW, MYSELF)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.code == "state_unwritable"  # EFBIG; a disk that is really full is in the integration test
    assert contents(pair) == OLD
    assert not pair.was_cut()


def spoil_link(path: pathlib.Path) -> None:
    path.symlink_to("/etc/hostname")


def spoil_pipe(path: pathlib.Path) -> None:
    os.mkfifo(path)


def spoil_folder(path: pathlib.Path) -> None:
    path.mkdir()


def spoil_bytes(path: pathlib.Path) -> None:
    path.write_bytes(b"A=1\nsecret\xff=2\n")


def spoil_size(path: pathlib.Path) -> None:
    path.write_bytes(b"#" * (1024 * 1024 + 1))


SPOILT = [
    (spoil_link, "it is no regular file of at most 1048576 bytes; move it away"),
    (spoil_pipe, "it is no regular file of at most 1048576 bytes; move it away"),
    (spoil_folder, "it is no regular file of at most 1048576 bytes; move it away"),
    (spoil_size, "it is no regular file of at most 1048576 bytes; move it away"),
    (spoil_bytes, "line 2 is no UTF-8 text; repair that line"),
]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(("spoil", "seen"), SPOILT)
def test_file_that_cannot_be_used_is_named_and_not_shown(
    pair: Pair, spoil: collections.abc.Callable[[pathlib.Path], None], seen: str, number: int
) -> None:
    spoil(pair.paths[number])
    with pytest.raises(FleetError) as caught:
        pair.read()
    assert caught.value.code == "invalid_env_file"
    assert str(caught.value) == f"The environment file {pair.paths[number]} cannot be used: {seen}."


def test_link_that_somebody_put_where_we_write_is_not_followed(pair: Pair, tmp_path: pathlib.Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    for path in pair.paths:
        path.with_name(path.name + NEXT).symlink_to(precious)
    pair.repair()
    pair.write(NEW, MYSELF)
    assert precious.read_text() == "kept"
    assert contents(pair) == NEW


REACHES: list[collections.abc.Callable[[Pair], object]] = [
    Pair.read,
    Pair.was_cut,
    Pair.repair,
    lambda pair: pair.write(NEW, MYSELF),
    lambda pair: pair.is_private(MYSELF),
    lambda pair: pair.make_private(MYSELF),
]


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("linked", ["local_code", ""])
def test_folder_that_is_a_link_gives_nobody_the_files_of_another_folder(
    tmp_path: pathlib.Path, reach: collections.abc.Callable[[Pair], object], linked: str
) -> None:
    home, project = tmp_path / "home", tmp_path / "project"
    for folder in (home, project, project / "local_code"):
        folder.mkdir()
    for name in (".env", ".env.next", "local_code/.env", "local_code/.env.next"):
        (project / name).write_text("ROOT_ONLY=1\n")
        (project / name).chmod(0o640)
    if linked:
        (home / linked).symlink_to(project)
    else:
        home.rmdir()
        home.symlink_to(project)
    before = {path: (path.lstat(), path.is_file() and path.read_text()) for path in sorted(project.rglob("*"))}
    with pytest.raises(FleetError) as caught:
        reach(Pair(home))
    assert caught.value.code == "unsafe_path"
    after = {path: (path.lstat(), path.is_file() and path.read_text()) for path in sorted(project.rglob("*"))}
    assert {path: (state[0].st_mode, state[0].st_ctime_ns, state[1]) for path, state in after.items()} == {
        path: (state[0].st_mode, state[0].st_ctime_ns, state[1]) for path, state in before.items()
    }


def test_home_that_is_not_there_is_never_taken_for_the_folder_we_were_started_in(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("A=mine\n")
    monkeypatch.chdir(tmp_path)
    pair = Pair(tmp_path / "none")
    assert (pair.read(), pair.was_cut(), pair.is_private(MYSELF)) == (("", ""), False, True)
    pair.repair()
    for change in (lambda: pair.write(NEW, MYSELF), lambda: pair.make_private(MYSELF)):
        with pytest.raises(FleetError) as caught:
            change()
        assert caught.value.code == "state_unwritable"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(".env", "A=mine\n")]
