"""The deployment bundle beside the usual tools in the same run: build, verification, what changes, and memory.

    .venv/bin/python benchmarks/bundle.py [--size MB] [--sparse MB] [--rounds N] [--quick] [--folder DIR]

The images are made from this machine's own /usr, cut into layers of 64 MB and one of 20 MB, as an archive of
`docker save`; zip and unzip work on the same layers as files. Both sides take turns and find their input in the page
cache; our build has no part cache, signs, and ends with fsync (zip does not). Our times are without Python's start
(0.3 s).

- build: `zip -r -9` against `deployment_bundle` at level 9
- verify: `unzip -p | sha256sum` of all entries against signature, headers and every hash
- differ: bytes of a second bundle that the first does not have, after the 20 MB layer changed
- memory: bytes resident at most (VmHWM) for building and verifying a bundle of a sparse file
"""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import typing as t

ROOT: t.Final = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "collections")]

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build import builder  # noqa: E402
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.source import parse_source  # noqa: E402
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify import trust, verifier  # noqa: E402
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import Manifest  # noqa: E402

MEGABYTE: t.Final = 1_000_000
LAYER: t.Final = 64 * MEGABYTE  # bytes; about what a base image or an npm install has
CHANGED: t.Final = 20 * MEGABYTE  # bytes of the layer that changes (issue 4, "How good")
LARGEST: t.Final = 16 * MEGABYTE  # bytes of one file in a layer
LEVEL: t.Final = 9
TREE: t.Final = pathlib.Path("/usr")
PRINCIPAL: t.Final = "benchmark@example"
PLAN: t.Final = {"version": "1.0.0", "counter": 1, "released": "2026-11-01T12:00:00Z", "deploy": "deploy.sh"}
HEAD: t.Final = (
    "| what                   | usual tool | seconds (min, median, max)  | ours, seconds               | ratio |"
)


@dataclasses.dataclass(frozen=True)
class Ground:
    """Where a run takes place: the layers as files, the image archive with the same layers, and a key."""

    folder: pathlib.Path

    @property
    def layers(self) -> pathlib.Path:
        """The layers as files: what zip is given."""
        return self.folder / "layers"

    @property
    def key(self) -> pathlib.Path:
        """What signs."""
        return self.folder / "key"

    @property
    def signers(self) -> pathlib.Path:
        """Who is trusted: that key."""
        return self.folder / "allowed_signers"


def files_of_this_machine() -> collections.abc.Iterator[pathlib.Path]:
    """Programs, libraries and texts, in an order that mixes them; from the beginning again at the end."""
    paths = [path for path in TREE.rglob("*") if not path.is_symlink() and path.is_file()]
    paths = [path for path in paths if 0 < path.stat().st_size < LARGEST and os.access(path, os.R_OK)]
    random.Random(1).shuffle(paths)
    while paths:
        yield from paths


def make_layer(path: pathlib.Path, size: int, files: collections.abc.Iterator[pathlib.Path]) -> str:
    """A tar of about ``size`` bytes, of which no two are alike; its digest."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        while archive.offset < size:
            member = tarfile.TarInfo(f"{path.name}/{archive.offset}")
            data = next(files).read_bytes()[: size - archive.offset]
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_image(path: pathlib.Path, layers: dict[str, pathlib.Path]) -> None:
    """What `docker save` writes of an image with these layers (digest -> file)."""
    diff_ids = [f"sha256:{digest}" for digest in layers]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = json.dumps({"architecture": "arm64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    entries = [f"{digest}/layer.tar" for digest in layers]
    manifest = json.dumps([{"Config": name, "RepoTags": ["benchmark:latest"], "Layers": entries}]).encode()
    with tarfile.open(path, "w") as archive:
        for entry, file in zip(entries, layers.values(), strict=True):
            archive.add(file, entry)
        for entry, data in ((name, config), ("manifest.json", manifest)):
            member = tarfile.TarInfo(entry)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def prepare(ground: Ground, size: int) -> None:
    """The layers, the image before (`old.tar`) and after one layer changed (`new.tar`), and the key."""
    ground.layers.mkdir()
    files, layers, left = files_of_this_machine(), {}, size - CHANGED
    for number in range(1 + max(0, left - 1) // LAYER):
        path = ground.layers / f"layer{number}.tar"
        layers[make_layer(path, min(LAYER, max(left, MEGABYTE)), files)] = path
        left -= LAYER
    old, new = ground.layers / "changed.tar", ground.folder / "changed.tar"
    save_image(ground.folder / "new.tar", {**layers, make_layer(new, CHANGED, files): new})
    save_image(ground.folder / "old.tar", {**layers, make_layer(old, CHANGED, files): old})
    (ground.folder / "deploy.sh").write_text("echo @VERSION@\n")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ground.key], check=True)
    public = ground.key.with_suffix(".pub").read_text()
    ground.signers.write_text(f"{PRINCIPAL} {public}")


def build(ground: Ground, plan: dict[str, t.Any], name: str) -> builder.Built:
    """Our build, from nothing; with the collection's default of no part cache."""
    path = ground.folder / name
    path.unlink(missing_ok=True)
    return builder.build(parse_source({**PLAN, **plan}, ground.folder, {}), path, key=ground.key, level=LEVEL)


def image_plan(archive: str) -> dict[str, t.Any]:
    """The part of bundle.yml that names the image."""
    return {"images": [{"service": "benchmark", "name": "benchmark:latest", "tar": archive}]}


def verify(ground: Ground, name: str) -> Manifest:
    """Our verification: signature, manifest, headers, and every hash."""

    def judge(manifest: bytes, signature: bytes | None) -> trust.Judgement:
        return trust.judge(
            manifest,
            signature,
            allowed_signers=ground.signers,
            policy="required",
            record=None,
            clock=time.time,
            synced=lambda: True,
            subject=name,
        )

    return verifier.verify(ground.folder / name, judge).manifest


def memory_of(ground: Ground, plan: dict[str, t.Any], name: str, pipe: t.Any) -> None:
    """A process: build or verify; most bytes that it had resident, and seconds."""
    started = time.perf_counter()
    if plan:
        build(ground, plan, name)
    else:
        verify(ground, name)
    status = pathlib.Path("/proc/self/status").read_text()
    match = re.search(r"VmHWM:\s*(\d+) kB", status)
    pipe.send((int(match[1]) * 1024 if match else 0, time.perf_counter() - started))


def in_process(ground: Ground, plan: dict[str, t.Any], name: str) -> tuple[int, float]:
    """Bytes resident at most, and seconds without the start of Python."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=memory_of, args=(ground, plan, name, theirs))
    process.start()
    theirs.close()
    try:
        return t.cast("tuple[int, float]", ours.recv())
    finally:
        process.join()


def timed(command: str, folder: pathlib.Path) -> float:
    """Seconds of a shell command."""
    started = time.perf_counter()
    subprocess.run(["/bin/sh", "-c", command], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def row(what: str, tool: str, theirs: list[float], ours: list[float]) -> str:
    """One comparison; the ratio is that of the medians."""
    shown = [f"{min(times):.2f}, {statistics.median(times):.2f}, {max(times):.2f}" for times in (theirs, ours)]
    ratio = statistics.median(theirs) / statistics.median(ours)
    return f"| {what:22} | {tool:10} | {shown[0]:27} | {shown[1]:27} | {ratio:4.2f}x |"


def compare(ground: Ground, rounds: int) -> collections.abc.Iterator[str]:
    """Build and verification, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ("zip", "build", "unzip", "verify")}
    for _round in range(rounds):
        (ground.folder / "usual.zip").unlink(missing_ok=True)
        seconds["zip"].append(timed(f"zip -r -q -{LEVEL} ../usual.zip .", ground.layers))
        seconds["build"].append(in_process(ground, image_plan("old.tar"), "old.zip")[1])
        seconds["unzip"].append(timed("unzip -p old.zip | sha256sum", ground.folder))
        seconds["verify"].append(in_process(ground, {}, "old.zip")[1])
    yield row("build", "zip -9", seconds["zip"], seconds["build"])
    yield row("verify", "unzip -p", seconds["unzip"], seconds["verify"])
    usual, ours = ((ground.folder / name).stat().st_size for name in ("usual.zip", "old.zip"))
    yield f"\nsize: zip -9 {usual:,} bytes, ours {ours:,} bytes: {(ours / usual - 1) * 100:+.2f} %"


def differing(ground: Ground) -> str:
    """How many bytes of the second bundle are not in the first: all but the parts that both have."""
    old = build(ground, image_plan("old.tar"), "old.zip")
    new = build(ground, {**image_plan("new.tar"), "version": "1.0.1", "counter": 2}, "new.zip")
    have = {entry.compressed_sha256 for entry in old.manifest.files}
    shared = sum(entry.compressed_size for entry in new.manifest.files if entry.compressed_sha256 in have)
    return f"differ: {new.size - shared:,} bytes of {new.size:,} after a layer of {CHANGED:,} bytes changed"


def memory(ground: Ground, size: int) -> collections.abc.Iterator[str]:
    """With a file of that many bytes which take no room on the disk."""
    with (ground.folder / "sparse.img").open("wb") as file:
        file.truncate(size)
    plan = {"files": [{"src": "sparse.img", "dest": "sparse.img"}]}
    for what, words in (("build", plan), ("verify", {})):
        resident, seconds = in_process(ground, words, "sparse.zip")
        yield f"memory: {what} of {size:,} bytes: {resident / MEGABYTE:.0f} MB resident, {seconds:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=1000, help="MB of images")
    parser.add_argument("--sparse", type=int, default=4300, help="MB of the sparse file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="100 MB, 1000 MB sparse, one round: half a minute")
    parser.add_argument("--folder", type=pathlib.Path, help="where to work; needs four times the size")
    options = parser.parse_args()
    size, sparse, rounds = (100, 1000, 1) if options.quick else (options.size, options.sparse, options.rounds)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bundle-", dir=options.folder))
    try:
        ground = Ground(folder)
        prepare(ground, size * MEGABYTE)
        print(f"{size} MB of images, level {LEVEL}, {rounds} round(s), {len(os.sched_getaffinity(0))} cores\n\n{HEAD}")
        print("|" + "|".join("-" * len(column) for column in HEAD.strip("|").split("|")) + "|")
        for line in compare(ground, rounds):
            print(line, flush=True)
        print(differing(ground), flush=True)
        for line in memory(ground, sparse * MEGABYTE):
            print(line, flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
