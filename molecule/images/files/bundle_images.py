"""Images on their way from archives into a release, and from a release into Docker: on the controller and on the hosts.

bundle_images.py release ARCHIVES RELEASE       take the archives of a folder apart, as the build of a bundle does
bundle_images.py load RELEASE SERVICE [--present N]   into Docker, without the layers that it has (or the first N)
bundle_images.py check RELEASE                  Docker has each image under its id, and it runs
bundle_images.py collect RELEASE                each image out of Docker by name, as the build of a bundle does
bundle_images.py build CONTEXT VERSION          an image with the version in it, by Docker, twice
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import tempfile

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build import images
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import (
    ImageEntry,
    config_path,
    layer_path,
)

CHUNK = 65536


def entry_of(image: images.CollectedImage) -> ImageEntry:
    config = hashlib.sha256(image.config).hexdigest()
    layers = tuple(layer.digest for layer in image.layers)
    return ImageEntry(image.service, image.name, image.architecture, config, layers, sum(x.size for x in image.layers))


def entries(release: pathlib.Path) -> list[ImageEntry]:
    read = json.loads((release / "images.json").read_text())
    return [ImageEntry(**{**item, "layers": tuple(item["layers"])}) for item in read]


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def release(archives: pathlib.Path, target: pathlib.Path) -> None:
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(archives.glob("*.tar")):
            spec = images.ImageSpec(path.stem, f"trailcurrent-in-vehicle-{path.stem}:latest", tar=path.name)
            image = images.collect(spec, pathlib.Path(scratch), archives, "1.0.0")
            found.append(entry_of(image))
            (target / "images").mkdir(parents=True, exist_ok=True)
            (target / config_path(found[-1].config)).write_bytes(image.config)
            for layer in image.layers:
                with layer.path.open("rb") as file:
                    data = os.pread(file.fileno(), layer.size, layer.offset)
                (target / layer_path(layer.digest)).write_bytes(data)
    (target / "images.json").write_text(json.dumps([dataclasses.asdict(entry) for entry in found]))


def load(folder: pathlib.Path, service: str, present: int | None) -> None:
    (image,) = (entry for entry in entries(folder) if entry.service == service)
    if present is None:
        ids = docker("image", "ls", "--quiet", "--no-trunc").split()
        lines = docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", *ids).splitlines() if ids else []
        present = images.present_layers(image, map(json.loads, lines))
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.glob("images/*")}
    sent = 0
    engine = subprocess.Popen(
        ["docker", "load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with engine.stdin as pipe:
        for chunk in images.load_archive(image, lambda path: chunks(folder / path), sizes, present):
            sent += pipe.write(chunk)
    said = engine.stdout.read().decode()
    print(json.dumps({"status": engine.wait(), "said": said, "present": present, "bytes": sent}))


def chunks(path: pathlib.Path):
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            yield data


def check(folder: pathlib.Path) -> None:
    for image in entries(folder):
        for name in (images.pinned_name(image), f"sha256:{image.config}"):
            found = docker("image", "inspect", "--format", "{{.Id}}", name)
            assert found == f"sha256:{image.config}", (name, found)
            said = docker("run", "--rm", "--network", "none", name, "version")
            assert said == f"{image.service} {folder.name}", said


def collect(folder: pathlib.Path) -> None:
    for image in entries(folder):
        spec = images.ImageSpec(image.service, images.pinned_name(image), engine="docker")
        with tempfile.TemporaryDirectory() as scratch:
            found = entry_of(images.collect(spec, pathlib.Path(scratch), folder, folder.name))
        assert found == dataclasses.replace(image, name=found.name), (found, image)


def build(context: pathlib.Path, version: str) -> None:
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nARG WHO\nLABEL who=$WHO\nCOPY sw.js notes.txt* /srv/\n")
    (context / ".dockerignore").write_text("notes.txt\n")
    (context / "sw.js").write_text("__VERSION__\n")
    (context / "notes.txt").write_text("not for the image\n")
    spec = images.BuildSpec(
        context.name, arguments={"WHO": "me"}, substitutions=(images.Substitution("sw.js", "__VERSION__"),)
    )
    found = []
    for _time in range(2):
        with tempfile.TemporaryDirectory() as scratch:
            image = images.collect(
                images.ImageSpec("web", "web:latest", build=spec), pathlib.Path(scratch), context.parent, version
            )
            (layer,) = image.layers
            data = layer.path.read_bytes()
        assert f"{version}\n".encode() in data, "the version is not in the image"
        assert b"not for the image" not in data, ".dockerignore was not obeyed"
        found.append(entry_of(image))
    assert found[0] == found[1], found
    identity = f"sha256:{found[0].config}"
    assert docker("image", "inspect", "--format", "{{.Id}}", identity) == identity
    assert not docker("image", "ls", "--quiet", "web"), "a build moved a name of the user's"
    assert (context / "sw.js").read_text() == "__VERSION__\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=["release", "load", "check", "collect", "build"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("argument", nargs="?")
    parser.add_argument("--present", type=int)
    options = parser.parse_args()
    if options.act == "release":
        release(options.folder, pathlib.Path(options.argument))
    elif options.act == "load":
        load(options.folder, options.argument, options.present)
    elif options.act == "build":
        build(options.folder, options.argument)
    else:
        {"check": check, "collect": collect}[options.act](options.folder)


if __name__ == "__main__":
    main()
