"""Archives of images in the layouts that engines write, and the ways in which one can be none: a sentence each."""

from __future__ import annotations

import json
import tarfile
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import image_archive
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.image_archive import (
    ArchivedImage,
    load_manifest,
    read_image_archive,
)
from ansible_collections.trailcurrent.fleet.tests.unit.image_archives import entry, sha256, small_image, tar

SUBJECT = "backend.tar of service backend"


def read(data: bytes) -> ArchivedImage:
    return read_image_archive(lambda offset, size: data[offset : offset + size], len(data), SUBJECT)


def check(data: bytes, *, gzipped: bool = False) -> None:
    image, found = small_image(), read(data)
    assert (found.config, found.id, found.architecture) == (image.config, image.id, "arm64")
    assert [layer.diff_id for layer in found.layers] == [sha256(layer) for layer in image.layers]
    assert [layer.gzipped for layer in found.layers] == [gzipped] * 2
    if not gzipped:
        assert [data[layer.offset : layer.offset + layer.size] for layer in found.layers] == image.layers


def test_docker_before_25_is_read() -> None:
    image = small_image()
    leftovers = {"repositories": b"{}", "ab/VERSION": b"1.0", "ab/json": b"{}"}
    check(tar({**leftovers, **image.docker_files()}))


def test_docker_since_25_is_read_by_its_manifest() -> None:
    """It writes both layouts in one; the layers lie in blobs/ by their uncompressed digests."""
    image = small_image()
    files = image.oci_files(compress=False)
    layers = [f"blobs/sha256/{sha256(layer)}" for layer in image.layers]
    names = {"Config": f"blobs/sha256/{image.id}", "RepoTags": None, "Layers": layers}
    check(tar({**files, "manifest.json": json.dumps([names]).encode()}))


def test_podman_with_its_links_is_read() -> None:
    image = small_image()
    names = [f"{sha256(layer)}.tar" for layer in image.layers]
    manifest = [{"Config": f"{image.id}.json", "RepoTags": [], "Layers": names}]
    entries = [
        *(entry(name, layer) for name, layer in zip(names, image.layers, strict=True)),
        entry("legacy/layer.tar", kind=tarfile.SYMTYPE, target=f"../{names[0]}"),
        entry(f"{image.id}.json", image.config),
        entry("manifest.json", json.dumps(manifest).encode()),
    ]
    check(tar(entries))


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_oci_archive_is_read(compress: bool, nested: bool) -> None:
    check(tar(small_image().oci_files(compress=compress, nested=nested)), gzipped=compress)


def test_layer_that_comes_twice_is_kept_twice() -> None:
    """Two steps of a Dockerfile that change nothing give the same empty layer; Docker writes a link for the second."""
    image = small_image()
    image.layers.append(image.layers[0])
    files = image.docker_files()
    names = [f"{sha256(layer)}/layer.tar" for layer in image.layers[:2]] + ["again/layer.tar"]
    files["manifest.json"] = json.dumps([{**image.docker_entry(), "Layers": names}]).encode()
    link = entry("again/layer.tar", kind=tarfile.SYMTYPE, target=f"../{names[0]}")
    found = read(tar([*(entry(*item) for item in files.items()), link]))
    assert found.layers[0] == found.layers[2] and len(found.layers) == 3


def spoiled(**changes: t.Any) -> bytes:
    """An archive whose entry in manifest.json is another."""
    image = small_image()
    manifest = json.dumps([{**image.docker_entry(), **changes}]).encode()
    return tar({**image.docker_files(), "manifest.json": manifest})


def configured(**changes: t.Any) -> bytes:
    """An archive whose configuration is another."""
    return tar(small_image(changes=changes).docker_files())


def manifest(text: bytes) -> bytes:
    return tar({**small_image().docker_files(), "manifest.json": text})


def oci(text: bytes) -> bytes:
    return tar({**small_image().oci_files(), "index.json": text})


ENTRY = json.dumps(small_image().docker_entry()).encode()
ZSTD = b"\x28\xb5\x2f\xfd" + bytes(60)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "two images": (manifest(b"[" + ENTRY + b"," + ENTRY + b"]"), "has 2 images"),
    "no image": (manifest(b"[]"), "has 0 images"),
    "no list": (manifest(ENTRY), "no JSON list"),
    "no JSON": (manifest(b"\xff{"), "is no JSON"),
    "nested too deep": (manifest(b"[" * 100_000), "is no JSON"),
    "huge number": (manifest(b"[" + b"9" * 5000 + b"]"), "is no JSON"),
    "no object": (manifest(b"[1]"), "no JSON object"),
    "huge manifest": (manifest(b" " * (image_archive.DOCUMENT_LIMIT + 1)), "at most 4194304"),
    "no manifest": (tar({"a": b"b"}), "neither a manifest.json nor an index.json"),
    "no config": (spoiled(Config=None), "`Config`"),
    "config missing": (spoiled(Config="gone.json"), "'gone.json' is not in it"),
    "config climbs out": (spoiled(Config="../../etc/shadow"), "is not in it"),
    "layers are none": (spoiled(Layers={}), "`Layers`"),
    "layer is none": (spoiled(Layers=[1, 2]), "no text"),
    "layer missing": (spoiled(Layers=["a/layer.tar", "b/layer.tar"]), "'a/layer.tar' is not in it"),
    "layer left out": (spoiled(Layers=small_image().docker_entry()["Layers"][:1]), "names 2 layers, and 1"),
    "config of another name": (
        tar({**small_image().docker_files(), f"{small_image().id}.json": small_image(os="linux ").config}),
        "another than its name",
    ),
    "no digests": (configured(rootfs={"diff_ids": ["sha256:12", "x"]}), "no SHA-256"),
    "digest is no text": (configured(rootfs={"diff_ids": [1, 2]}), "no text"),
    "no layers": (configured(rootfs={"diff_ids": []}), "0 layers"),
    "too many layers": (configured(rootfs={"diff_ids": ["sha256:" + "0" * 64] * 126}), "126 layers"),
    "no rootfs": (configured(rootfs=[]), "`rootfs`"),
    "no architecture": (configured(architecture=None), "`architecture`"),
    "Windows": (configured(os="windows"), "for 'windows'"),
    "zstd": (tar({**small_image().docker_files(), small_image().docker_entry()["Layers"][0]: ZSTD}), "zstd"),
    "index of two": (oci(b'{"manifests": [{}, {}]}'), "has 2 images"),
    "index of none": (oci(b"{}"), "`manifests`"),
    "index without digest": (oci(b'{"manifests": [{}]}'), "`digest`"),
    "index of another digest": (oci(b'{"manifests": [{"digest": "md5:1"}]}'), "no SHA-256"),
    "index of nothing": (oci(b'{"manifests": [{"digest": "sha256:%s"}]}' % (b"0" * 64)), "is not in it"),
    "link out of it": (tar([entry("manifest.json", kind=tarfile.SYMTYPE, target="/etc/passwd")]), "leads out"),
    "duplicate": (tar([entry("manifest.json", b"[]"), entry("manifest.json", b"[]")]), "twice"),
    "truncated": (tar(small_image().docker_files())[:3000], "ends at byte 3000"),
    "no tar": (b"<html>404 Not Found</html>" * 50, "no tar"),
}


@pytest.mark.parametrize(("data", "said"), HOSTILE.values(), ids=HOSTILE)
def test_archive_that_cannot_be_used_is_refused_in_one_sentence(data: bytes, said: str) -> None:
    with pytest.raises(InputError) as refused:
        read(data)
    sentence = str(refused.value)
    assert refused.value.code == "image_invalid"
    assert sentence.startswith(f"The image archive {SUBJECT} cannot be used: ") and sentence.endswith(").")
    assert said in sentence


def test_blob_that_is_not_its_digest_is_refused() -> None:
    files = small_image().oci_files()
    name = json.loads(files["index.json"])["manifests"][0]["digest"].replace(":", "/")
    files[f"blobs/{name}"] += b" "
    with pytest.raises(InputError, match="another than its name"):
        read(tar(files))


def test_indexes_that_name_each_other_end() -> None:
    inner = json.dumps({"manifests": [{"digest": "sha256:" + "0" * 64}]}).encode()
    files = {"index.json": inner}
    for _depth in range(image_archive.INDEX_DEPTH + 2):
        files[f"blobs/sha256/{sha256(inner)}"] = inner
        inner = json.dumps({"manifests": [{"digest": f"sha256:{sha256(inner)}"}]}).encode()
    with pytest.raises(InputError, match="indexes name each other"):
        read(tar({**files, "index.json": inner}))


def test_absurd_layer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_archive, "LAYER_LIMIT", 1000)
    with pytest.raises(InputError, match="at most 1000"):
        read(tar(small_image().docker_files()))


def test_manifest_for_loading_is_docker_s() -> None:
    assert load_manifest("c" * 64, ["a" * 64, "b" * 64], ["trailcurrent/x:1"]) == (
        b'[{"Config": "%s.json", "Layers": ["%s.tar", "%s.tar"], "RepoTags": ["trailcurrent/x:1"]}]\n'
        % (b"c" * 64, b"a" * 64, b"b" * 64)
    )


KEYS = st.sampled_from(["Config", "Layers", "manifests", "digest", "annotations", "config", "layers", "rootfs", "os"])
VALUES = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda v: st.lists(v) | st.dictionaries(KEYS, v))


@given(VALUES, st.sampled_from(["manifest.json", "index.json"]))
def test_no_document_is_more_than_refused(value: t.Any, name: str) -> None:
    with pytest.raises(InputError):
        read(tar({name: json.dumps(value).encode()}))


@given(st.data())
def test_no_mutation_is_more_than_refused(data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from([small_image().docker_files(), small_image().oci_files(nested=True)]))
    damaged = bytearray(tar(layout))
    for _change in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = read(bytes(damaged))
    except InputError as refused:
        assert refused.code == "image_invalid"
    else:
        assert len(found.layers) == 2
