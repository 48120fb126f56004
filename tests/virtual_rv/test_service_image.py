"""The images of the RV's services: as `docker save` writes them, and of nothing but their packages and version."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import tarfile

import pytest

from virtual_rv.__main__ import main
from virtual_rv.service_image import BASE, SERVICES, PackageError, Service, make_image, read_tree

SERVICE = Service("frontend", 8443, ("libjs-jquery",))


def package(names: list[str], *, busybox: str = "./bin/busybox", owner: str = "builder") -> bytes:
    """The tar of a package, with its builder's name in it, a link and a hard link."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in ["./", "./usr/", *names]:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.uname, info.uid, info.mtime, info.mode = owner, 1000, 1_700_000_000, 0o755
            content = b"" if info.isdir() else name.encode()
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, kind in (("./usr/z-link", tarfile.SYMTYPE), ("./usr/a-hard", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "busybox" if kind == tarfile.SYMTYPE else busybox
            archive.addfile(info)
    return file.getvalue()


def trees(**options: str) -> dict:
    busybox = options.get("busybox", "./bin/busybox")
    return {name: read_tree(package([busybox, f"./usr/{name}"], **options)) for name in (*BASE, "libjs-jquery")}


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {item.name: archive.extractfile(item).read() if item.isreg() else b"" for item in archive}


def test_archive_names_its_layers_and_configuration_by_their_digests() -> None:
    files = members(make_image(SERVICE, "1.2.0", "arm64", trees()))
    (image,) = json.loads(files["manifest.json"])
    config = json.loads(files[image["Config"]])
    assert image["RepoTags"] == ["trailcurrent-in-vehicle-frontend:latest"]
    assert image["Config"] == hashlib.sha256(files[image["Config"]]).hexdigest() + ".json"
    digests = [f"sha256:{hashlib.sha256(files[layer]).hexdigest()}" for layer in image["Layers"]]
    assert config["rootfs"] == {"type": "layers", "diff_ids": digests}
    assert (config["architecture"], config["os"], len(digests)) == ("arm64", "linux", 3)


def test_nothing_of_the_machine_is_in_an_image() -> None:
    here, there = (make_image(SERVICE, "1.2.0", "arm64", trees(owner=owner)) for owner in ("builder", "root"))
    assert here == there
    assert make_image(SERVICE, "1.2.1", "arm64", trees()) != here


def test_links_of_a_package_stay_links_and_hard_links_become_files() -> None:
    files = members(make_image(SERVICE, "1.2.0", "arm64", trees()))
    base = files[json.loads(files["manifest.json"])[0]["Layers"][0]]
    with tarfile.open(fileobj=io.BytesIO(base)) as archive:
        assert archive.getmember("usr/z-link").linkname == "busybox"
        assert archive.extractfile("usr/a-hard").read() == b"./bin/busybox"
        names = archive.getnames()
    assert names == sorted(set(names))


@pytest.mark.parametrize("busybox", ["./bin/busybox", "./usr/bin/busybox"])
def test_entry_point_is_where_debian_puts_busybox(busybox: str) -> None:
    files = members(make_image(SERVICE, "1.2.0", "arm64", trees(busybox=busybox)))
    config = json.loads(files[json.loads(files["manifest.json"])[0]["Config"]])
    assert config["config"]["Entrypoint"] == [busybox[1:], "sh", "/srv/start"]


def test_debian_without_busybox_is_said() -> None:
    with pytest.raises(PackageError, match="bin/busybox"):
        make_image(SERVICE, "1.2.0", "arm64", trees(busybox="./opt/busybox"))


def test_services_are_at_least_three_that_share_a_base() -> None:
    assert len({service.name for service in SERVICES}) >= 3
    assert all(not set(service.packages) & set(BASE) for service in SERVICES)


@pytest.mark.parametrize(
    ("script", "said"),
    [(None, "made on Debian"), ("echo 'E: Unable to locate package tzdata' >&2; exit 100", "apt-get update")],
    ids=["no apt", "no lists"],
)
def test_machine_without_packages_is_told_what_to_do(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str | None,
    said: str,
) -> None:
    if script:
        (tmp_path / "apt-get").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["images", "--directory", str(tmp_path / "images"), "--version", "1.0.0"]) == 1
    assert said in capsys.readouterr().err
