"""The state on disk: whole or not at all, one run at a time, followed from any offset."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils import journal
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError, LinkError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
)


def test_write_leaves_the_old_content_when_the_disk_is_full(tmp_path: pathlib.Path) -> None:
    """A real full disk: a file size limit of the kernel stands in where no small file system can be mounted."""
    target = tmp_path / "record.json"
    target.write_text("old")
    script = (
        "import resource, sys, pathlib, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from ansible_collections.trailcurrent.fleet.plugins.module_utils import errors, journal\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try:\n"
        "    journal.write_atomically(pathlib.Path(sys.argv[1]), b'x' * 4096)\n"
        "except errors.LinkError as error:\n"
        "    print(error.code, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(target)],
        env=os.environ | {"PYTHONPATH": str(pathlib.Path("collections").resolve())},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"state_unwritable could not write {target}: File too large")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_unwritable_folder_names_the_folder_and_the_option(tmp_path: pathlib.Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    with pytest.raises(LinkError, match="state_dir") as caught:
        journal.Records(tmp_path / "state").write("esp32-aabbcc", {})
    assert caught.value.code == "state_unwritable"


def test_second_run_is_refused_and_told_who_holds_the_lock(tmp_path: pathlib.Path) -> None:
    first, second = journal.Lock(tmp_path), journal.Lock(tmp_path)
    first.take(what="rollout", run="rollout-1", request="a")
    try:
        with pytest.raises(InputError) as caught:
            second.take(what="rollout", run="rollout-2", request="b")
    finally:
        first.release()
    assert caught.value.code == "locked"
    assert f"rollout rollout-1 of user {journal._user()} (process {os.getpid()}, since 2" in str(caught.value)
    second.take(what="rollout", run="rollout-2", request="b")
    second.release()


def test_lock_of_a_killed_process_is_free(tmp_path: pathlib.Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        "from ansible_collections.trailcurrent.fleet.plugins.module_utils import journal\n"
        "journal.Lock(pathlib.Path(sys.argv[1])).take(what='rollout', run='r', request='q')\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path("collections").resolve())}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        holder = journal.Lock(tmp_path).holder()
        assert holder is not None
        assert (holder.pid, holder.run, holder.request) == (child.pid, "r", "q")
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert journal.Lock(tmp_path).holder() is None


def test_probing_the_lock_never_makes_a_starting_run_fail(tmp_path: pathlib.Path) -> None:
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        with journal.Lock(tmp_path).held(what="w", run="r", request="q"):
            assert journal.Lock(tmp_path).holder() is not None
        assert journal.Lock(tmp_path).holder() is None


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", "a b", ".", "a\n"])
def test_run_name_that_climbs_out_is_refused(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        journal.RunFolder(tmp_path, name)
    assert caught.value.code == "invalid_option"


def test_events_are_read_whole_from_any_offset(tmp_path: pathlib.Path) -> None:
    folder = journal.RunFolder(tmp_path, "run-1")
    folder.create()
    assert folder.events(0) == ([], 0)
    folder.event({"phase": "waking", "message": "é"})
    folder.flush()
    first, offset = folder.events(0)
    folder.event({"phase": "uploading"})
    folder.flush()
    with (folder.path / "events.jsonl").open("ab") as file:
        file.write(b'{"phase": "half')
    assert first == [{"phase": "waking", "message": "é"}]
    assert folder.events(offset)[0] == [{"phase": "uploading"}]
    assert folder.events(folder.events(offset)[1]) == ([], folder.events(offset)[1])


def test_progress_is_gone_when_the_run_ends(tmp_path: pathlib.Path) -> None:
    folder = journal.RunFolder(tmp_path, "run-1")
    folder.create()
    folder.progress("esp32-aabbcc", {"percent": 4})
    assert journal.RunFolder(tmp_path, "run-1").read_progress() == {"esp32-aabbcc": {"percent": 4}}
    assert not any("progress" in path.name or "new" in path.suffix for path in folder.path.iterdir())
    folder.finish({"changed": False})
    assert folder.read_progress() == {}
    assert folder.outcome() == {"changed": False}
    assert (folder.path / "outcome.json").stat().st_mode & 0o777 == 0o600


def test_old_runs_are_forgotten_and_the_newest_kept(tmp_path: pathlib.Path) -> None:
    for number in range(journal.RUNS_KEPT + 5):
        folder = journal.RunFolder(tmp_path, f"run-{number:02}")
        folder.create()
        os.utime(folder.path, (number, number))
    folder = journal.RunFolder(tmp_path, "run-new")
    folder.create()
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(names) == journal.RUNS_KEPT
    assert names[-1] == "run-new"
    assert names[0] == "run-06"


@given(st.dictionaries(st.text(min_size=1), JSON))
def test_records_come_back_as_written(tmp_path_factory: pytest.TempPathFactory, record: dict[str, object]) -> None:
    records = journal.Records(tmp_path_factory.mktemp("state"))
    assert records.read("esp32-aabbcc") == {}
    records.write("esp32-aabbcc", record)
    assert records.read("esp32-aabbcc") == record


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_damaged_record_counts_as_none(tmp_path: pathlib.Path, damage: bytes) -> None:
    records = journal.Records(tmp_path)
    records.write("esp32-aabbcc", {"a": 1})
    (tmp_path / "modules" / "esp32-aabbcc.json").write_bytes(damage)
    assert records.read("esp32-aabbcc") == {}
    assert records.all() == []


def test_image_that_the_card_damaged_is_not_put_back(tmp_path: pathlib.Path) -> None:
    store = journal.ImageStore(tmp_path)
    sha256 = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    assert store.get(sha256) is None
    store.put(sha256, b"foo")
    assert store.get(sha256) == b"foo"
    (tmp_path / "images" / f"{sha256}.bin").write_bytes(b"fo0")
    assert store.get(sha256) is None
    store.put(sha256, b"foo")
    assert store.get(sha256) == b"foo"
    store.prune(set())
    assert store.get(sha256) is None


def test_line_that_a_full_disk_tore_hides_no_other(tmp_path: pathlib.Path) -> None:
    folder = journal.RunFolder(tmp_path, "run-1")
    folder.create()
    (folder.path / "events.jsonl").write_bytes(b'{"phase": "waki\n{"phase": "done"}\n[1]\n')
    assert folder.events(0)[0] == [{"phase": "done"}]


def test_outcome_is_kept_in_memory_where_the_disk_is_full(tmp_path: pathlib.Path) -> None:
    folder = journal.RunFolder(tmp_path, "run-1")
    folder.create()
    (folder.path / "outcome.json").mkdir()  # nothing can replace a folder
    folder.finish({"changed": True})
    try:
        assert journal.RunFolder(tmp_path, "run-1").outcome() == {"changed": True}
    finally:
        folder._progress_path().unlink()


def test_request_that_nobody_read_does_not_stay(tmp_path: pathlib.Path) -> None:
    old = journal.RunFolder(tmp_path, "run-1")
    old.create()
    (old.path / "request.json").write_text("a password")
    journal.RunFolder(tmp_path, "run-2").create()
    assert not (old.path / "request.json").exists()


def test_lock_that_was_let_go_names_nobody(tmp_path: pathlib.Path) -> None:
    with journal.Lock(tmp_path).held(what="rollout", run="r", request="q"):
        pass
    assert (tmp_path / "lock").read_bytes() == b""


def test_digest_that_is_a_path_is_no_image(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"secret")
    assert journal.ImageStore(tmp_path / "state").get("../../x") is None
