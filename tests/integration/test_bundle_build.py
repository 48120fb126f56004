"""Builds as processes: killed, out of room, on other machines, of several gigabytes; and what other programs see."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import typing as t
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GIB = 1 << 30
MEMORY_LIMIT = 100e6  # bytes resident (issue 4, "How good")
KILLS = 10
BUILDER = """
import json, os, pathlib, re, resource, sys
if "CORES" in os.environ:
    os.sched_getaffinity = lambda process: set(range(int(os.environ["CORES"])))
    os.cpu_count = lambda: int(os.environ["CORES"])
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build import builder
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build import source
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
if "ROOM" in os.environ:  # a limit on the size of a file fails where a full disk does: in the middle of a write
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["ROOM"]),) * 2)
plan, out, cache, level = sys.argv[1:]
print("begun", flush=True)
try:
    built = builder.build(
        source.read_source(pathlib.Path(plan), {}),
        pathlib.Path(out),
        cache=pathlib.Path(cache) if cache else None,
        level=int(level),
    )
except FleetError as error:
    sys.exit(f"{error.code}: {error}")
# Not ru_maxrss: that of the process which started this one counts into it.
memory = 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
print(json.dumps({"sha256": built.sha256, "changed": built.changed, "size": built.size, "memory": memory}))
"""
FILES = {
    "config/app.conf": b"name = value\n" * 300,
    "config/deep/er/run.sh": b"#!/bin/sh\n",
    "config/empty": b"",
    "local_code/noise.bin": random.Random(1).randbytes(6_000_000),
    "local_code/text.txt": b"".join(b"line %d of the text\n" % (number * number) for number in range(300_000)),
    "docker-compose.yml": b"services: {}\n",
    "deploy.sh": b"echo @VERSION@\n",
    "bundle.yml": b"""\
version: 1.2.0
counter: 3
released: 2026-11-01T12:00:00Z
compose: docker-compose.yml
config: config
local_code: local_code
deploy: deploy.sh
""",
}


def tree(folder: pathlib.Path, names: list[str] | None = None) -> pathlib.Path:
    for name in names or list(FILES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(FILES[name])
    (folder / "config/deep/er/run.sh").chmod(0o744)
    return folder


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tree(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def reference(plan: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("reference")
    build(plan, out)
    return bundle_in(out).read_bytes()


def start(
    plan: pathlib.Path, out: pathlib.Path, cache: pathlib.Path | None = None, level: int = 9, **options: t.Any
) -> subprocess.Popen[str]:
    out.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "collections")} | options.pop("environment", {})
    command = [sys.executable, "-c", BUILDER, str(plan), str(out), str(cache or ""), str(level)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def build(
    plan: pathlib.Path, out: pathlib.Path, cache: pathlib.Path | None = None, level: int = 9, **options: t.Any
) -> dict[str, t.Any]:
    said, complaints = start(plan, out, cache, level, **options).communicate(timeout=120)
    assert said, complaints
    return t.cast("dict[str, t.Any]", json.loads(said))


def bundle_in(out: pathlib.Path) -> pathlib.Path:
    [bundle] = out.iterdir()
    return bundle


def hidden(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.rglob(".*") if folder.exists()]


def test_second_build_that_changes_something(plan: pathlib.Path, reference: bytes, tmp_path: pathlib.Path) -> None:
    first = build(plan, tmp_path / "out")
    second = build(plan, tmp_path / "out")
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["sha256"] == second["sha256"] == hashlib.sha256(reference).hexdigest()
    assert bundle_in(tmp_path / "out").read_bytes() == reference


@pytest.mark.parametrize(
    ("umask", "environment"),
    [
        (0o077, {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "1"}),
        (0o000, {"TZ": "America/Los_Angeles", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2", "HOME": "/nonexistent"}),
        (0o022, {"TZ": "UTC", "LC_ALL": "tr_TR.UTF-8", "LANGUAGE": "tr", "SOURCE_DATE_EPOCH": "1000000000"}),
    ],
)
def test_bytes_that_depend_on_the_machine(
    reference: bytes, tmp_path: pathlib.Path, umask: int, environment: dict[str, str]
) -> None:
    before = os.umask(umask)
    try:
        shuffled = random.Random(umask).sample(list(FILES), len(FILES))
        plan = tree(tmp_path / f"elsewhere {umask}", shuffled)
        for cache in (None, tmp_path / "cache", tmp_path / "cache"):
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            build(plan, tmp_path / "out", cache, environment=environment, cwd=tmp_path)
            assert bundle_in(tmp_path / "out").read_bytes() == reference
    finally:
        os.umask(before)


def test_bytes_that_depend_on_the_number_of_cores(plan: pathlib.Path, reference: bytes, tmp_path: pathlib.Path) -> None:
    core = min(os.sched_getaffinity(0))
    build(plan, tmp_path / "out", preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    assert bundle_in(tmp_path / "out").read_bytes() == reference


def test_archive_that_other_programs_refuse(plan: pathlib.Path, tmp_path: pathlib.Path) -> None:
    build(plan, tmp_path / "out")
    bundle = bundle_in(tmp_path / "out")
    tested = subprocess.run(["unzip", "-tq", bundle], capture_output=True, text=True, check=True)
    assert "No errors detected" in tested.stdout
    assert not tested.stderr
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
    subprocess.run(["unzip", "-q", bundle, "-d", tmp_path / "home"], check=True)
    release = tmp_path / "home/trailcurrent-release-1.2.0"
    assert (tmp_path / "home/deploy.sh").read_bytes() == b"echo 1.2.0\n"
    unpacked = {path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()}
    assert unpacked == {*FILES, "manifest.json"} - {"deploy.sh", "bundle.yml"}
    assert all((release / name).read_bytes() == FILES[name] for name in unpacked - {"manifest.json"})
    assert (release / "config/deep/er/run.sh").stat().st_mode & 0o777 == 0o755


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True], ids=["no-cache", "cache"])
def test_killed_build_that_leaves_half_a_bundle(
    plan: pathlib.Path, reference: bytes, tmp_path: pathlib.Path, *, cached: bool
) -> None:
    """At random points with a fixed seed: then the old bundle is there, or the new one, and the next build succeeds."""
    generator = random.Random(20261101 + cached)
    out, cache = tmp_path / "out", tmp_path / "cache" if cached else None
    process, started = start(plan, out, cache), time.monotonic()
    process.communicate(timeout=120)
    duration = time.monotonic() - started
    name, killed = bundle_in(out).name, 0
    for number in range(KILLS):
        old = b"the release before" if number % 2 else None
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        (out / name).unlink(missing_ok=True)
        if old:
            (out / name).write_bytes(old)
        process = start(plan, out, cache)
        time.sleep(generator.uniform(0, duration))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.communicate()
        there = (out / name).read_bytes() if (out / name).exists() else None
        assert there in (old, reference)
        assert build(plan, out, cache)["sha256"] == hashlib.sha256(reference).hexdigest()
        assert (out / name).read_bytes() == reference
        assert hidden(tmp_path) == []
    assert killed > KILLS // 3


@pytest.mark.parametrize("room", [0, 1_000, 1_000_000, 6_100_000])
def test_disk_that_fills_leaves_nothing(plan: pathlib.Path, tmp_path: pathlib.Path, room: int) -> None:
    process = start(plan, tmp_path / "out", tmp_path / "cache", environment={"ROOM": str(room)})
    _said, complaints = process.communicate(timeout=60)
    assert process.returncode == 1
    assert complaints.startswith("disk_full: ")
    assert complaints.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []
    assert hidden(tmp_path) == []


def test_two_builds_of_one_bundle_at_once(plan: pathlib.Path, reference: bytes, tmp_path: pathlib.Path) -> None:
    builds = [start(plan, tmp_path / "out", tmp_path / "cache") for _build in range(3)]
    for process in builds:
        _said, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints
    assert bundle_in(tmp_path / "out").read_bytes() == reference
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("cores", [8, 16, 64])
def test_memory_that_grows_with_the_cores(tmp_path: pathlib.Path, cores: int) -> None:
    """More threads than this machine has cores hold more of each file at once, not less."""
    plan = tree(tmp_path / "plan")
    words = bytes(byte & 63 for byte in random.Random(8).randbytes(1 << 20))
    for number in range(8):
        with (plan / f"local_code/large{number}").open("wb") as file:
            file.writelines(bytes([number, block]) + words for block in range(20))
    for number in range(40):
        (plan / f"local_code/small{number}").write_bytes(bytes([number]) + words * 4)
    built = build(plan, tmp_path / "out", level=1, environment={"CORES": str(cores)})
    assert built["memory"] < 0.9 * MEMORY_LIMIT  # Ansible's part of the module's process needs room as well


@pytest.mark.slow
def test_file_beyond_four_gigabytes_needs_no_more_memory(tmp_path: pathlib.Path) -> None:
    """Sparse data: it takes no room on this disk, and zip64 in the bundle."""
    plan = tree(tmp_path / "plan")
    with (plan / "local_code/image.tar").open("wb") as image:
        image.truncate(4 * GIB + 12_345)
    built = build(plan, tmp_path / "out", level=6)
    assert built["memory"] < MEMORY_LIMIT
    bundle = bundle_in(tmp_path / "out")
    name, size = "trailcurrent-release-1.2.0/local_code/image.tar", 4 * GIB + 12_345
    listed = subprocess.run(["unzip", "-l", bundle, name], capture_output=True, text=True, check=True)
    assert str(size) in listed.stdout
    with zipfile.ZipFile(bundle) as archive:
        assert archive.getinfo(name).file_size == size
        with archive.open(name) as content:
            assert content.read(GIB // 4) == bytes(GIB // 4)
        assert archive.read("trailcurrent-release-1.2.0/local_code/text.txt") == FILES["local_code/text.txt"]
