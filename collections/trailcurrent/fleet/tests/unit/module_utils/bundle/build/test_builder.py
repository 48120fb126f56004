"""A bundle is the same bytes from the same input, is touched only when it changes, and keeps the signature it has."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import tarfile
import typing as t
import zipfile

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.builder import Built, build
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.source import FileSpec, parse_source
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError, LinkError, RefusedError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.bundle_zip import lay_out, read_head
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import (
    Manifest,
    encode_manifest,
    parse_manifest,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import deflate
from virtual_rv.image import make_image

LAYERS = [b"the base of all services " * 3000, b"backend " * 900, b"frontend " * 700]
RELEASE = "trailcurrent-release-1.2.0/"
PLAN = {
    "version": "1.2.0",
    "counter": 3,
    "released": "2026-11-01T12:00:00Z",
    "oldest_version": "1.0.0",
    "database_one_way": True,
    "compose": "docker-compose.yml",
    "config": "config",
    "deploy": "deploy.sh",
    "firmware": {"folder": "fw", "targets": {"gnss_module": "esp32c6"}, "required": ["gnss_module"]},
    "images": [
        {"service": "backend", "name": "backend:latest", "tar": "backend.tar"},
        {"service": "frontend", "name": "frontend:latest", "tar": "frontend.tar"},
    ],
}


def save_image(path: pathlib.Path, name: str, layers: list[bytes], architecture: str = "arm64") -> str:
    """What `docker save` of an image writes; its id."""
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        }
    ).encode()
    identity = hashlib.sha256(config).hexdigest()
    entries = {f"{digest}/layer.tar": layer for digest, layer in zip(digests, layers, strict=True)}
    manifest = [{"Config": f"{identity}.json", "RepoTags": [name], "Layers": list(entries)}]
    with tarfile.open(path, "w") as archive:
        for entry, data in {
            f"{identity}.json": config,
            "manifest.json": json.dumps(manifest).encode(),
            **entries,
        }.items():
            member = tarfile.TarInfo(entry)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return identity


@pytest.fixture
def base(tmp_path: pathlib.Path) -> pathlib.Path:
    base = tmp_path / "base"
    (base / "config").mkdir(parents=True)
    (base / "config/empty").write_bytes(b"")
    (base / "config/run.sh").write_text("#!/bin/sh\n")
    (base / "config/run.sh").chmod(0o700)
    (base / "docker-compose.yml").write_text("services: {}\n" * 50)
    (base / "deploy.sh").write_text("echo @VERSION@\n")
    (base / "fw/gnss_module").mkdir(parents=True)
    (base / "fw/gnss_module/firmware.bin").write_bytes(make_image(project="gnss", version="2.1.0", chip="esp32c6"))
    save_image(base / "backend.tar", "backend:latest", LAYERS[:2])
    save_image(base / "frontend.tar", "frontend:latest", [LAYERS[0], LAYERS[2]])
    return base


@pytest.fixture
def keys(tmp_path: pathlib.Path) -> dict[str, pathlib.Path]:
    """ECDSA signs differently each time, Ed25519 does not."""
    for kind in ("ecdsa", "ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / kind], check=True)
    return {kind: tmp_path / kind for kind in ("ecdsa", "ed25519")}


def made(base: pathlib.Path, out: pathlib.Path | None = None, **options: t.Any) -> Built:
    plan = {**PLAN, **options.pop("plan", {})}
    return build(parse_source(plan, base, {}), out or base.parent, **options)


def state(path: pathlib.Path) -> tuple[bytes, int, int]:
    return path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino


def signature_of(built: Built) -> bytes | None:
    return read_head(lambda offset, size: built.path.read_bytes()[offset : offset + size], "it").signature


def scratch_of(folder: pathlib.Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def test_manifest_that_does_not_say_what_is_in_the_bundle(base: pathlib.Path) -> None:
    built = made(base)
    manifest = built.manifest
    digests = [hashlib.sha256(layer).hexdigest() for layer in LAYERS]
    assert (manifest.version, manifest.counter, manifest.oldest_version) == ("1.2.0", 3, "1.0.0")
    assert (manifest.created, manifest.database_one_way) == (manifest.released, True)
    assert [(image.service, image.architecture, list(image.layers), image.size) for image in manifest.images] == [
        ("backend", "arm64", digests[:2], len(LAYERS[0] + LAYERS[1])),
        ("frontend", "arm64", [digests[0], digests[2]], len(LAYERS[0] + LAYERS[2])),
    ]
    assert [(one.type, one.addr, one.chip, one.version, one.required) for one in manifest.firmware] == [
        ("gnss_module", None, "esp32c6", "2.1.0", True)
    ]
    configs = [f"images/{image.config}.json" for image in manifest.images]
    firmware = ["firmware/wired/gnss_module/firmware.bin"]
    others = ["config/empty", "config/run.sh", "docker-compose.yml"]
    layers = [f"images/{digest}.tar" for digest in digests]
    assert [entry.path for entry in manifest.files] == sorted([*others, *firmware, *layers, *configs])
    assert {entry.path: entry.mode for entry in manifest.files}["config/run.sh"] == 0o755


def test_room_on_the_pi_that_is_not_enough(base: pathlib.Path, keys: dict[str, pathlib.Path]) -> None:
    built = made(base, key=keys["ecdsa"])
    requires = built.manifest.requires
    assert requires.disk_download >= built.size
    assert requires.disk_extraction >= sum(entry.size for entry in built.manifest.files)
    assert requires.disk_images >= sum(map(len, LAYERS))


def test_zip_that_python_reads_otherwise(base: pathlib.Path) -> None:
    built = made(base)
    with zipfile.ZipFile(built.path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names[:2] == [f"{RELEASE}manifest.json", "deploy.sh"]
        assert archive.read("deploy.sh") == b"echo 1.2.0\n"
        assert parse_manifest(archive.read(names[0]), "it") == built.manifest
        for entry in built.manifest.files:
            assert hashlib.sha256(archive.read(RELEASE + entry.path)).hexdigest() == entry.sha256
            assert archive.getinfo(RELEASE + entry.path).external_attr >> 16 == 0o100000 | entry.mode


def test_file_that_is_not_what_its_layout_says(base: pathlib.Path, keys: dict[str, pathlib.Path]) -> None:
    built = made(base, key=keys["ed25519"])
    data = built.path.read_bytes()
    layout = lay_out(built.manifest, encode_manifest(built.manifest), signature_of(built))
    assert (built.sha256, built.size) == (hashlib.sha256(data).hexdigest(), len(data) == layout.size and len(data))
    assert data.endswith(layout.tail)


def test_second_build_that_touches_the_bundle(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    first = made(base, cache=tmp_path / "cache")
    before = state(first.path)
    for cache in (tmp_path / "cache", tmp_path / "other cache", None):
        again = made(base, cache=cache)
        assert (again.changed, again.sha256, again.manifest) == (False, first.sha256, first.manifest)
        assert state(first.path) == before
    assert scratch_of(tmp_path) == []


@pytest.mark.parametrize("kind", ["ecdsa", "ed25519"])
def test_signature_that_changes_though_the_manifest_does_not(
    base: pathlib.Path, keys: dict[str, pathlib.Path], kind: str
) -> None:
    first = made(base, key=keys[kind])
    assert first.signed
    before = state(first.path)
    assert made(base, key=keys[kind]).changed is False
    keys[kind].with_suffix(".pub").unlink()  # then only a signature tells which key it is
    assert made(base, key=keys[kind], check=True).changed is False
    assert made(base, key=keys[kind]).changed is False
    assert state(first.path) == before


def test_key_of_another_that_is_not_seen_in_check_mode(base: pathlib.Path, keys: dict[str, pathlib.Path]) -> None:
    old = signature_of(made(base, key=keys["ecdsa"]))
    keys["ed25519"].with_suffix(".pub").unlink()
    assert made(base, key=keys["ed25519"], check=True).changed is True
    new = made(base, key=keys["ed25519"])
    assert (new.changed, signature_of(new) == old) == (True, False)
    assert made(base, key=keys["ed25519"], check=True).changed is False


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("kind", ["none", "stale"])
def test_key_that_cannot_be_believed(
    base: pathlib.Path, keys: dict[str, pathlib.Path], tmp_path: pathlib.Path, kind: str, *, check: bool
) -> None:
    """A public key beside the private one, of the key before: its signature must not stay for the new key's."""
    first = made(base, key=keys["ecdsa"])
    before = state(first.path)
    if kind == "stale":
        shutil.copy(keys["ed25519"], tmp_path / kind)
        shutil.copy(keys["ecdsa"].with_suffix(".pub"), tmp_path / f"{kind}.pub")
    with pytest.raises(RefusedError) as caught:
        made(base, key=tmp_path / kind, check=check)
    assert caught.value.code == "signing_failed"
    assert state(first.path) == before


def test_script_at_the_root_that_a_file_of_the_release_replaces(base: pathlib.Path) -> None:
    """The plan refuses that name; who makes one otherwise still gets both."""
    (base / "other.sh").write_text("echo other\n")
    source = parse_source({**PLAN, "files": [{"src": "other.sh", "dest": "x"}]}, base, {})
    built = build(dataclasses.replace(source, files=(FileSpec("other.sh", "deploy.sh", None),)), base.parent)
    with zipfile.ZipFile(built.path) as archive:
        assert archive.read("deploy.sh") == b"echo 1.2.0\n"
        assert archive.read(f"{RELEASE}deploy.sh") == b"echo other\n"
    assert built.manifest.deploy.sha256 == hashlib.sha256(b"echo 1.2.0\n").hexdigest()


def test_machines_are_those_that_the_images_are_for(base: pathlib.Path) -> None:
    assert made(base).manifest.requires.architectures == ("aarch64",)


def test_other_library_that_nobody_is_warned_of(base: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    made(base, warn=heard.append)
    assert heard == []
    monkeypatch.setattr(deflate, "PROVEN", "2.0.6")
    made(base, warn=heard.append)
    assert ["may differ from those built elsewhere" in sentence for sentence in heard] == [True]


def test_signature_of_the_key_before(base: pathlib.Path, keys: dict[str, pathlib.Path]) -> None:
    first = made(base, key=keys["ecdsa"])
    old = signature_of(first)
    assert made(base, key=keys["ed25519"], check=True).changed is True
    second = made(base, key=keys["ed25519"])
    assert second.changed
    assert signature_of(second) != old
    assert second.manifest == first.manifest


def test_build_without_a_key_keeps_a_true_signature_and_no_other(
    base: pathlib.Path, keys: dict[str, pathlib.Path]
) -> None:
    first = made(base, key=keys["ecdsa"])
    assert (made(base).changed, made(base).signed) == (False, True)
    (base / "docker-compose.yml").write_text("services: {x: {}}\n")
    other = made(base)
    assert (other.changed, other.signed, signature_of(other)) == (True, False, None)
    assert other.manifest != first.manifest


def test_unsigned_bundle_that_gets_its_signature(base: pathlib.Path, keys: dict[str, pathlib.Path]) -> None:
    assert made(base).signed is False
    signed = made(base, key=keys["ed25519"])
    assert (signed.changed, signed.signed) == (True, True)


def test_key_that_cannot_sign_leaves_the_bundle_that_is_there(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    first = made(base)
    before = state(first.path)
    (tmp_path / "broken").write_text("no key\n")
    with pytest.raises(RefusedError) as caught:
        made(base, key=tmp_path / "broken")
    assert caught.value.code == "signing_failed"
    assert state(first.path) == before
    assert scratch_of(tmp_path) == []


@pytest.mark.parametrize("at", [0, 40, 700, -1, -40, "middle", "cut", "more", "gone"])
def test_damaged_bundle_that_is_taken_for_unchanged(base: pathlib.Path, at: int | str) -> None:
    first = made(base)
    good = first.path.read_bytes()
    place = len(good) // 2 if at == "middle" else at
    if isinstance(place, int):
        harmed = bytearray(good)
        harmed[place] ^= 1
        first.path.write_bytes(harmed)
    elif at == "gone":
        first.path.unlink()
    else:
        first.path.write_bytes(good[:-1] if at == "cut" else good + b"x")
    assert made(base).changed
    assert first.path.read_bytes() == good


def test_check_mode_that_writes(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    foretold = made(base, out, check=True)
    assert (foretold.changed, foretold.sha256, list(out.iterdir())) == (True, None, [])
    built = made(base, out)
    assert (foretold.manifest, foretold.size, foretold.path) == (built.manifest, built.size, built.path)
    again = made(base, out, check=True)
    assert (again.changed, again.sha256) == (False, built.sha256)


@pytest.mark.parametrize("level", [-1, 0, 10])
def test_level_that_there_is_not(base: pathlib.Path, level: int) -> None:
    with pytest.raises(FleetError, match=f"level {level}") as caught:
        made(base, level=level)
    assert caught.value.code == "invalid_option"


def test_folder_of_the_destination_is_made(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    built = made(base, tmp_path / "new/deep/any.zip")
    assert built.path == tmp_path / "new/deep/any.zip"
    assert built.path.stat().st_mode & 0o777 == 0o644


def test_image_for_another_processor(base: pathlib.Path) -> None:
    with pytest.raises(FleetError) as caught:
        made(base, plan={"requires": {"architectures": ["x86_64"]}})
    assert caught.value.code == "image_architecture"


def test_layers_that_images_share_are_there_once(base: pathlib.Path) -> None:
    shared = f"{RELEASE}images/{hashlib.sha256(LAYERS[0]).hexdigest()}.tar"
    with zipfile.ZipFile(made(base).path) as archive:
        assert archive.namelist().count(shared) == 1
        assert archive.read(shared) == LAYERS[0]


def test_unchanged_layers_that_are_other_bytes_in_the_next_release(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def bytes_of(manifest: Manifest) -> dict[str, str]:
        return {entry.path: entry.compressed_sha256 for entry in manifest.files}

    old = bytes_of(made(base, tmp_path / "old.zip").manifest)
    save_image(base / "backend.tar", "backend:latest", [LAYERS[0], b"newer " * 900])
    new = bytes_of(made(base, tmp_path / "new.zip", plan={"version": "1.3.0", "counter": 4}).manifest)
    assert len(new.items() - old.items()) == 2  # the layer, and the configuration that names it


def test_destination_that_cannot_be_written_is_one_sentence(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LinkError) as caught:
        made(base, tmp_path / "file/bundle.zip")
    assert caught.value.code == "state_unwritable"
    assert str(tmp_path / "file") in str(caught.value)


def test_progress_that_goes_beyond_its_end(base: pathlib.Path) -> None:
    said: list[tuple[str, int, int]] = []
    made(base, progress=lambda *words: said.append(words))
    assert [phase for phase, _done, _total in said if phase == "writing"]
    assert all(0 <= done <= total for _phase, done, total in said)
    images = {"reading image backend", "reading image frontend"}
    assert {phase for phase, done, total in said if done == total} == {*images, "compressing", "writing"}
    said.clear()
    made(base, progress=lambda *words: said.append(words))
    assert {phase for phase, _done, _total in said} == {*images, "compressing", "comparing"}
