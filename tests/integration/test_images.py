"""Images by real engines and of real packages: Podman saves, builds and loads; apt brings what they are made of.

The engine keeps everything below the test's own folder. Docker itself is in molecule/images.
"""

from __future__ import annotations

import collections.abc
import hashlib
import io
import os
import pathlib
import subprocess
import sys
import tarfile

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.images import (
    BuildSpec,
    CollectedImage,
    ImageSpec,
    LayerFile,
    Substitution,
    collect,
    load_archive,
    pinned_name,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import (
    ImageEntry,
    config_path,
    layer_path,
)
from virtual_rv.service_image import SERVICES

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "localhost/trailcurrent-in-vehicle-web:latest"
Podman = collections.abc.Callable[..., str]


def write(folder: pathlib.Path, version: str, **environment: str) -> pathlib.Path:
    """The services' images, made by the command."""
    command = [sys.executable, "-m", "virtual_rv", "images", "--directory", str(folder), "--version", version]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the archive of each service, version 1.0.0."""
    return write(tmp_path_factory.mktemp("services"), "1.0.0")


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[Podman]:
    """Podman with a store of its own, for the engine's link too; runs a command and returns what it says."""
    folder = tmp_path_factory.mktemp("podman")
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))

        def run(*arguments: str, data: bytes | None = None) -> str:
            done = subprocess.run(["podman", *arguments], input=data, capture_output=True, check=False, timeout=120)
            assert done.returncode == 0, done.stderr.decode()
            return done.stdout.decode().strip()

        yield run


@pytest.fixture
def context(tmp_path: pathlib.Path) -> pathlib.Path:
    """A build context whose service worker names the version."""
    folder = tmp_path / "web"
    (folder / "public").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\nARG WHO\nLABEL who=$WHO\nCOPY public /srv\nCMD ['/srv/start']\n")
    (folder / "public/sw.js").write_text("const CACHE = 'cache-__VERSION__';\n")
    (folder / "public/notes.txt").write_text("not for the image")
    (folder / ".dockerignore").write_text("**/notes.txt\n")
    return folder


def content(layer: LayerFile) -> bytes:
    with layer.path.open("rb") as file:
        return os.pread(file.fileno(), layer.size, layer.offset)


def files(image: CollectedImage) -> dict[str, bytes]:
    """The files of all layers."""
    found = {}
    for layer in image.layers:
        with tarfile.open(fileobj=io.BytesIO(content(layer))) as archive:
            found |= {item.name: archive.extractfile(item).read() for item in archive if item.isreg()}
    return found


def entry(image: CollectedImage) -> ImageEntry:
    config = hashlib.sha256(image.config).hexdigest()
    layers = tuple(layer.digest for layer in image.layers)
    return ImageEntry(image.service, image.name, image.architecture, config, layers, sum(x.size for x in image.layers))


def stream(image: CollectedImage) -> bytes:
    """The archive for `docker load`, from the parts as a bundle has them."""
    about = entry(image)
    parts = {layer_path(layer.digest): content(layer) for layer in image.layers}
    parts[config_path(about.config)] = image.config
    return b"".join(load_archive(about, lambda path: iter([parts[path]]), {path: len(parts[path]) for path in parts}))


def from_tar(service: str, folder: pathlib.Path, scratch: pathlib.Path) -> CollectedImage:
    spec = ImageSpec(service, f"trailcurrent-in-vehicle-{service}:latest", tar=f"{service}.tar")
    return collect(spec, scratch, folder, "1.0.0")


def built(tmp_path: pathlib.Path, version: str) -> CollectedImage:
    scratch = tmp_path / f"scratch-{version}"
    scratch.mkdir(exist_ok=True)
    build = BuildSpec(
        "web",
        platform="linux/arm64",
        arguments={"WHO": "me"},
        substitutions=(Substitution("public/sw.js", "__VERSION__"),),
    )
    return collect(ImageSpec("web", NAME, engine="podman", build=build), scratch, tmp_path, version)


def test_service_images_are_the_same_bytes_anywhere(services: pathlib.Path, tmp_path: pathlib.Path) -> None:
    previous = os.umask(0o077)
    try:
        other = write(tmp_path / "other", "1.0.0", TZ="Asia/Tokyo", LC_ALL="C.UTF-8", PYTHONHASHSEED="7")
    finally:
        os.umask(previous)
    for service in SERVICES:
        assert (other / f"{service.name}.tar").read_bytes() == (services / f"{service.name}.tar").read_bytes()


def test_service_images_share_their_base_and_a_new_version_changes_one_layer(
    services: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    newer = write(tmp_path / "newer", "1.1.0")
    images = [from_tar(service.name, services, tmp_path) for service in SERVICES]
    assert len(images) >= 3
    assert len({image.layers[0].digest for image in images}) == 1
    assert len({image.layers[-1].digest for image in images}) == len(images)
    for image in images:
        after = from_tar(image.service, newer, tmp_path)
        assert [layer.digest for layer in after.layers[:-1]] == [layer.digest for layer in image.layers[:-1]]
        assert after.layers[-1].digest != image.layers[-1].digest
        assert files(image)["srv/www/version.txt"] == f"{image.service} 1.0.0\n".encode()


@pytest.mark.parametrize("service", [service.name for service in SERVICES])
def test_loaded_image_has_the_id_that_the_manifest_names(
    services: pathlib.Path, tmp_path: pathlib.Path, podman: Podman, service: str
) -> None:
    image = from_tar(service, services, tmp_path)
    podman("load", "--quiet", data=stream(image))
    assert podman("image", "inspect", "--format", "{{.Id}}", pinned_name(entry(image))) == entry(image).config


def test_image_by_name_is_the_one_that_the_engine_has(
    services: pathlib.Path, tmp_path: pathlib.Path, podman: Podman
) -> None:
    image = from_tar("frontend", services, tmp_path)
    podman("load", "--quiet", data=(services / "frontend.tar").read_bytes())
    saved = collect(ImageSpec("frontend", image.name, engine="podman"), tmp_path, tmp_path, "1.0.0")
    assert saved.config == image.config
    assert [layer.digest for layer in saved.layers] == [layer.digest for layer in image.layers]
    collect(ImageSpec("frontend", image.name), tmp_path, tmp_path, "1.0.0")  # again, by whichever engine has it


def test_image_that_no_engine_has_is_named(tmp_path: pathlib.Path, podman: Podman) -> None:
    with pytest.raises(InputError, match=r"trailcurrent-none:latest.*podman has none") as refused:
        collect(ImageSpec("none", "trailcurrent-none:latest", engine="podman"), tmp_path, tmp_path, "1.0.0")
    assert refused.value.code == "image_unknown"
    assert podman("images", "--quiet", "trailcurrent-none") == ""


def test_built_image_holds_the_version_and_the_source_tree_does_not(
    tmp_path: pathlib.Path, context: pathlib.Path, podman: Podman
) -> None:
    image = built(tmp_path, "1.2.0")
    assert files(image) == {"srv/sw.js": b"const CACHE = 'cache-1.2.0';\n"}, "notes.txt is in .dockerignore"
    assert b'"me"' in image.config
    assert image.architecture == "arm64"
    assert (context / "public/sw.js").read_text() == "const CACHE = 'cache-__VERSION__';\n"
    podman("load", "--quiet", data=stream(image))
    assert podman("image", "inspect", "--format", "{{.Id}}", pinned_name(entry(image))) == entry(image).config


def test_image_built_again_is_the_same_and_another_version_is_another(
    tmp_path: pathlib.Path, context: pathlib.Path, podman: Podman
) -> None:
    first, again, other = (built(tmp_path, version) for version in ("1.2.0", "1.2.0", "1.3.0"))
    assert podman("images", "--quiet", NAME) == "", "a name of the user's is given to nothing that he did not build"
    assert first.config == again.config != other.config
    assert files(other)["srv/sw.js"] == b"const CACHE = 'cache-1.3.0';\n"


def test_build_that_fails_says_why(tmp_path: pathlib.Path, context: pathlib.Path, podman: Podman) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY nothing /srv\n")
    with pytest.raises(InputError, match=r"could not be built: podman says .*nothing") as refused:
        built(tmp_path, "1.2.0")
    assert refused.value.code == "source_invalid"
    assert podman("ps", "--all", "--quiet") == ""


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_archive_that_podman_saves_is_read(
    services: pathlib.Path, tmp_path: pathlib.Path, podman: Podman, kind: str
) -> None:
    image = from_tar("tileserver", services, tmp_path)
    podman("load", "--quiet", data=(services / "tileserver.tar").read_bytes())
    path = tmp_path / f"{kind}.tar"
    podman("save", "--quiet", "--format", kind, "--output", str(path), image.name)
    saved = collect(ImageSpec("tileserver", image.name, tar=path.name), tmp_path, tmp_path, "1.0.0")
    assert [layer.digest for layer in saved.layers] == [layer.digest for layer in image.layers]
