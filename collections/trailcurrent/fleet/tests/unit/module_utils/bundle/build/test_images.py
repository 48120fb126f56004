"""Images on their way into a bundle and out of it: whole and of the right kind, or refused."""

from __future__ import annotations

import collections.abc
import dataclasses
import gzip
import hashlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build import images
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.images import (
    BuildSpec,
    CollectedImage,
    ImageSpec,
    LayerFile,
    Substitution,
    collect,
    load_archive,
    pinned_name,
    present_layers,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError, InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import image_archive
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.image_archive import read_image_archive
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import (
    ImageEntry,
    config_path,
    layer_path,
)
from ansible_collections.trailcurrent.fleet.tests.unit.image_archives import Image, sha256, small_image, tar

NAME = "trailcurrent-in-vehicle-backend:latest"
SPEC = ImageSpec("backend", NAME, tar="images/backend.tar")


@pytest.fixture
def scratch(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def collected(scratch: pathlib.Path, data: bytes, **options: t.Any) -> CollectedImage:
    (scratch.parent / SPEC.tar).write_bytes(data)
    return collect(SPEC, scratch, scratch.parent, "1.2.0", **options)


def content(layer: LayerFile) -> bytes:
    with layer.path.open("rb") as file:
        return os.pread(file.fileno(), layer.size, layer.offset)


def entry_of(image: Image) -> ImageEntry:
    layers = tuple(map(sha256, image.layers))
    return ImageEntry("backend", NAME, image.architecture, image.id, layers, sum(map(len, image.layers)))


def release(image: Image) -> dict[str, bytes]:
    return {config_path(image.id): image.config, **{layer_path(sha256(layer)): layer for layer in image.layers}}


def loaded(image: Image, parts: dict[str, bytes], present: int = 0) -> bytes:
    """The archive for `docker load`, from a release of which ``parts`` can be read, in chunks."""
    sizes = {path: len(data) for path, data in release(image).items()}
    return b"".join(
        load_archive(entry_of(image), lambda path: iter([parts[path][:7], parts[path][7:]]), sizes, present)
    )


@pytest.mark.parametrize("layout", ["docker", "docker, compressed", "oci", "oci, compressed", "oci, nested"])
def test_image_is_the_same_whatever_the_archive(scratch: pathlib.Path, layout: str) -> None:
    image = small_image()
    data = {
        "docker": lambda: tar(image.docker_files()),
        "docker, compressed": lambda: gzip.compress(tar(image.docker_files())),
        "oci": lambda: tar(image.oci_files(compress=False)),
        "oci, compressed": lambda: tar(image.oci_files()),
        "oci, nested": lambda: tar(image.oci_files(nested=True)),
    }[layout]()
    found = collected(scratch, data)
    assert (found.service, found.name, found.architecture, found.config) == ("backend", NAME, "arm64", image.config)
    assert [content(layer) for layer in found.layers] == image.layers
    assert [layer.digest for layer in found.layers] == [sha256(layer) for layer in image.layers]


def test_layers_of_a_plain_archive_are_read_in_place(scratch: pathlib.Path) -> None:
    found = collected(scratch, tar(small_image().docker_files()))
    assert {layer.path for layer in found.layers} == {scratch.parent / SPEC.tar}
    assert not list(scratch.iterdir())


def test_layer_of_several_gzip_members_is_unpacked(scratch: pathlib.Path) -> None:
    image = small_image()
    files = image.docker_files()
    name = image.docker_entry()["Layers"][0]
    files[name] = gzip.compress(files[name][:1000]) + gzip.compress(files[name][1000:])
    assert content(collected(scratch, tar(files)).layers[0]) == image.layers[0]


@pytest.mark.parametrize("compress", [True, False])
def test_layer_that_is_not_its_digest_is_refused(scratch: pathlib.Path, compress: bool) -> None:
    image = small_image()
    files = image.docker_files()
    name = image.docker_entry()["Layers"][1]
    other = files[name].replace(b"/bin/sh", b"/bin/hs")
    files[name] = gzip.compress(other) if compress else other
    with pytest.raises(
        InputError, match=r"^The image archive backend\.tar of service backend .* has the SHA-256"
    ) as no:
        collected(scratch, tar(files))
    assert no.value.code == "image_invalid"


@pytest.mark.parametrize("chunk", [1, 2, 7, 63, 300])
def test_compressed_layer_is_unpacked_whole_however_small_the_pieces(
    scratch: pathlib.Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(images, "CHUNK", chunk)
    image = Image([tar({"zeros": bytes(5000), "noise": hashlib.sha512(b"seed").digest() * 9})])
    assert [content(layer) for layer in collected(scratch, tar(image.oci_files())).layers] == image.layers


@pytest.mark.parametrize("damage", ["truncated", "flipped", "followed by junk"])
def test_damaged_gzip_is_refused(scratch: pathlib.Path, damage: str) -> None:
    image = small_image()
    files = image.docker_files()
    name = image.docker_entry()["Layers"][0]
    packed = gzip.compress(files[name])
    files[name] = {
        "truncated": packed[:-3],
        "flipped": packed[:-6] + bytes([packed[-6] ^ 1]) + packed[-5:],
        "followed by junk": packed + b"junk",
    }[damage]
    with pytest.raises(InputError, match="compressed is damaged"):
        collected(scratch, tar(files))


def test_layer_that_unpacks_without_end_is_stopped(scratch: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_archive, "LAYER_LIMIT", 3 * images.CHUNK)
    image = Image([bytes(50 * images.CHUNK)])
    files = image.docker_files()
    files[image.docker_entry()["Layers"][0]] = gzip.compress(image.layers[0])
    with pytest.raises(InputError, match="unpacks to more than"):
        collected(scratch, tar(files))
    assert sum(path.stat().st_size for path in scratch.rglob("*.tar")) <= 4 * images.CHUNK


def test_layer_that_comes_twice_is_one_file(scratch: pathlib.Path) -> None:
    image = small_image()
    image.layers.append(image.layers[0])
    found = collected(scratch, tar(image.docker_files()))
    assert found.layers[0] == found.layers[2]
    assert len(found.layers) == 3


@pytest.mark.parametrize(
    ("architecture", "wanted", "named"),
    [
        ("amd64", ["aarch64"], "says aarch64; build it for `linux/arm64`"),
        ("amd64", ["aarch64", "x86_64"], "says aarch64 and x86_64; build it for `linux/arm64`"),
        ("arm", ["x86_64"], "says x86_64; build it for `linux/amd64`"),
        ("s390x", None, "Pis are aarch64 and x86_64"),
    ],
)
def test_image_for_another_processor_is_refused(
    scratch: pathlib.Path, architecture: str, wanted: list[str] | None, named: str
) -> None:
    data = tar(small_image(architecture=architecture).docker_files())
    with pytest.raises(InputError, match=f"service backend .*for {architecture}, .*{named}") as refused:
        collected(scratch, data, architectures=wanted)
    assert refused.value.code == "image_architecture"


def test_archive_that_is_not_there_is_named(scratch: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"service backend .*images/backend\.tar is not there") as refused:
        collect(SPEC, scratch, scratch.parent, "1.2.0")
    assert refused.value.code == "source_missing"


@pytest.mark.parametrize(
    ("service", "name"),
    [("Backend", NAME), ("a/b", NAME), ("", NAME), ("-x", NAME), ("x", "--help"), ("x", "a b"), ("x", "")],
)
def test_name_that_no_image_can_have_is_refused(scratch: pathlib.Path, service: str, name: str) -> None:
    with pytest.raises(InputError) as refused:
        collect(ImageSpec(service, name, tar="x.tar"), scratch, scratch, "1.2.0")
    assert refused.value.code == "source_invalid"


def test_loaded_archive_is_the_image() -> None:
    image = small_image()
    data = loaded(image, release(image))
    found = read_image_archive(lambda offset, size: data[offset : offset + size], len(data), "stream")
    assert found.id == image.id
    assert [data[layer.offset : layer.offset + layer.size] for layer in found.layers] == image.layers
    assert pinned_name(entry_of(image)).encode() in data
    assert NAME.encode() not in data, "a tag that moves would be taken from the release that runs"


def test_layers_that_the_engine_has_are_not_even_read() -> None:
    image = small_image()
    parts = release(image)
    del parts[layer_path(sha256(image.layers[0]))]
    data = loaded(image, parts, present=1)
    assert image.layers[1] in data
    assert json.dumps([f"{sha256(layer)}.tar" for layer in image.layers]).encode() in data


def test_layer_that_comes_twice_is_sent_once() -> None:
    image = small_image()
    image.layers.append(image.layers[0])
    assert loaded(image, release(image)).count(image.layers[0]) == 1
    assert loaded(image, release(image), present=1).count(image.layers[0]) == 0


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"1"], ids=["shorter", "longer"])
def test_part_of_another_size_ends_the_stream(change: collections.abc.Callable[[bytes], bytes]) -> None:
    image = small_image()
    path = layer_path(sha256(image.layers[1]))
    with pytest.raises(InputError, match=path) as refused:
        loaded(image, {**release(image), path: change(image.layers[1])})
    assert refused.value.code == "bundle_damaged"


@pytest.mark.parametrize(
    ("known", "present"),
    [([], 0), ([["a"]], 1), ([["b"]], 0), ([["b", "a"]], 0), ([["x"], ["a", "b", "z"]], 2), ([["a", "b"], ["a"]], 2)],
)
def test_only_first_layers_in_order_may_be_left_out(known: list[list[str]], present: int) -> None:
    """Docker looks a layer up by all that lie below it."""
    entry = dataclasses.replace(entry_of(small_image()), layers=("a", "b", "c"))
    assert present_layers(entry, [[f"sha256:{layer}" for layer in layers] for layers in known]) == present


# --- built images: with an engine that builds nothing, to see what it is given ---------------------------------------


@pytest.fixture
def context(scratch: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A build context, and a `docker` that keeps the context it is given and saves a small image."""
    folder = scratch.parent / "web"
    (folder / "public").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "public/sw.js").write_text("const CACHE = 'v__VERSION__-__VERSION__';\n")
    (folder / "public/link.js").symlink_to("sw.js")
    os.utime(folder / "public/sw.js", (1_000_000_000, 1_000_000_000))
    os.mkfifo(folder / "pipe")
    programs = scratch.parent / "bin"
    programs.mkdir()
    (programs / "image.tar").write_bytes(tar(small_image().docker_files()))
    (programs / "docker").write_text(
        f"""#!/bin/sh
case $1 in
  version) ;;
  build) printf '%s\\n' "$@" >{programs}/asked
    while [ $# -gt 1 ]; do [ "$1" = --iidfile ] && echo "sha256:{"0" * 64}" >"$2"; shift; done
    cp -RP "$1" {programs}/given ;;
  save) cp {programs}/image.tar "$3" ;;
  *) exit 1 ;;
esac
"""
    )
    (programs / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return folder


def built(scratch: pathlib.Path, *substitutions: Substitution, **options: object) -> CollectedImage:
    build = BuildSpec("web", substitutions=substitutions, **options)
    return collect(ImageSpec("web", NAME, engine="docker", build=build), scratch, scratch.parent, "1.2.0")


def snapshot(folder: pathlib.Path) -> dict[str, tuple[object, ...]]:
    stats = {path: path.lstat() for path in sorted(folder.rglob("*"))}
    return {
        path.name: (stat.st_mode, stat.st_mtime_ns, stat.st_ctime_ns, path.read_bytes() if path.is_file() else b"")
        for path, stat in stats.items()
    }


def test_version_stands_in_a_copy_and_the_source_tree_is_untouched(
    scratch: pathlib.Path, context: pathlib.Path
) -> None:
    before = snapshot(context)
    image = built(scratch, Substitution("public/sw.js", "__VERSION__"))
    given = scratch.parent / "bin/given"
    assert image.config == small_image().config
    assert (given / "public/sw.js").read_text() == "const CACHE = 'v1.2.0-1.2.0';\n"
    assert (given / "public/link.js").is_symlink()
    assert not (given / "pipe").exists()
    assert snapshot(context) == before


def test_engine_is_asked_for_what_bundle_yml_says(scratch: pathlib.Path, context: pathlib.Path) -> None:
    (context / "pipe").unlink()
    built(scratch, platform="linux/arm64", arguments={"B": "2 x", "A": "1"})
    asked = (scratch.parent / "bin/asked").read_text().splitlines()
    assert asked[3:] == [
        *("--file", str(context / "Dockerfile"), "--platform", "linux/arm64"),
        *("--build-arg", "A=1", "--build-arg", "B=2 x", str(context)),
    ]


@pytest.mark.parametrize(
    ("file", "text", "code"),
    [
        ("public/sw.js", "__OTHER__", "source_invalid"),
        ("public/sw.js", "", "source_invalid"),
        ("public/gone.js", "__VERSION__", "source_missing"),
        ("public", "__VERSION__", "source_missing"),
        ("../web/public/sw.js", "__VERSION__", "unsafe_path"),
        ("/etc/hostname", "__VERSION__", "unsafe_path"),
        ("out", "__VERSION__", "source_missing"),
    ],
)
def test_substitution_that_cannot_be_made_is_refused(
    scratch: pathlib.Path, context: pathlib.Path, file: str, text: str, code: str
) -> None:
    secret = scratch.parent / "secret"
    secret.write_text("__VERSION__")
    (context / "out").symlink_to(secret)
    with pytest.raises(FleetError) as refused:
        built(scratch, Substitution(file, text))
    assert refused.value.code == code
    assert secret.read_text() == "__VERSION__"


def test_operator_who_is_not_told_what_an_image_waits_for(scratch: pathlib.Path, context: pathlib.Path) -> None:
    said: list[tuple[str, int, int]] = []
    build = BuildSpec("web", substitutions=(Substitution("public/sw.js", "__VERSION__"),))
    for spec in (ImageSpec("web", NAME, engine="docker", build=build), ImageSpec("web", NAME, tar="bin/image.tar.gz")):
        (scratch.parent / "bin/image.tar.gz").write_bytes(gzip.compress(tar(small_image().docker_files())))
        collect(spec, scratch, scratch.parent, "1.2.0", progress=lambda *words: said.append(words))
    phases = list(dict.fromkeys(phase for phase, _done, _total in said))
    assert phases == ["building image web", "saving image web", "reading image web", "unpacking image web"]
    layers = sum(map(len, small_image().layers))
    assert said[:3] == [("building image web", 0, 0), ("saving image web", 0, 0), ("reading image web", layers, layers)]
    assert all(0 <= done <= total for _phase, done, total in said)


NO_ROOT = """
import os, pathlib, sys
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.images import *
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
base = pathlib.Path(sys.argv[1])
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    build = BuildSpec("web", substitutions=(Substitution("sw.js", "__VERSION__"),))
    collect(ImageSpec("web", "web:latest", build=build), base / "scratch", base, "1.2.0")
except FleetError as error:
    print(error.code, error)
"""


@pytest.mark.parametrize("shut", ["secret", "folder", "Dockerfile"])
def test_file_of_a_build_context_that_this_user_may_not_read(shut: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # not in pytest's folders, where another user may not even look
        base = pathlib.Path(name)
        (base / "web/folder").mkdir(parents=True)
        (base / "scratch").mkdir()
        for file in ("Dockerfile", "sw.js", "secret"):
            (base / "web" / file).write_text("__VERSION__")
        base.chmod(0o755)
        (base / "scratch").chmod(0o777)
        (base / "web" / shut).chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", NO_ROOT, name],
            env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[7])},
            capture_output=True,
            text=True,
            check=False,
        )
        (base / "web" / shut).chmod(0o700)
    assert done.stderr == ""
    assert done.stdout.startswith("source_missing ")
    assert f"web/{shut} cannot be read: Permission denied" in done.stdout


def test_disk_that_fills_with_a_build_context_is_one_sentence(scratch: pathlib.Path, context: pathlib.Path) -> None:
    """A limit on the size of a file fails where a full disk does."""
    (context / "large").write_bytes(bytes(5_000_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(InputError) as refused:
            built(scratch, Substitution("public/sw.js", "__VERSION__"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.code == "disk_full"
    assert "service web" in str(refused.value)
    assert not list(scratch.rglob("large"))


def test_disk_that_fills_with_an_unpacked_layer_is_one_sentence(scratch: pathlib.Path) -> None:
    image = Image([bytes(5_000_000)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(InputError) as refused:
            collected(scratch, tar(image.oci_files()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.code == "disk_full"


def test_build_context_that_is_not_there_is_named(scratch: pathlib.Path) -> None:
    with pytest.raises(InputError, match="web/Dockerfile is not there") as refused:
        built(scratch)
    assert refused.value.code == "source_missing"


def test_same_build_twice_leaves_nothing_of_the_first(scratch: pathlib.Path, context: pathlib.Path) -> None:
    first = built(scratch, Substitution("public/sw.js", "__VERSION__"))
    (context / "new").write_text("new")
    (scratch.parent / "bin/given/gone").write_text("")
    second = built(scratch, Substitution("public/sw.js", "__VERSION__"))
    assert hashlib.sha256(first.config).digest() == hashlib.sha256(second.config).digest()
    assert not list(scratch.rglob("Dockerfile"))


def test_images_of_one_service_for_two_processors_do_not_share_a_file(
    scratch: pathlib.Path, context: pathlib.Path
) -> None:
    first = built(scratch, Substitution("public/sw.js", "__VERSION__"))
    layers = [content(layer) for layer in first.layers]
    other = Image([tar({"etc/other": b"other" * 500})], architecture="amd64")
    (scratch.parent / "bin/image.tar").write_bytes(tar(other.docker_files()))
    (scratch.parent / "bin/given").rename(scratch.parent / "bin/given-before")
    second = built(scratch, Substitution("public/sw.js", "__VERSION__"))
    assert [content(layer) for layer in first.layers] == layers
    assert [content(layer) for layer in second.layers] == other.layers
