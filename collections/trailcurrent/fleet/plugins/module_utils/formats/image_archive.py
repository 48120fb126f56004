"""Archives of container images: what `docker save`, `podman save` and BuildKit write, and what `docker load` takes.

Two layouts are read: Docker's (``manifest.json``; Docker Image Specification v1.2) and OCI's (``index.json``; OCI Image
Layout 1.1). One is written: Docker's, which every engine loads. An image's id is the SHA-256 of its configuration, and
that names each layer by the SHA-256 of its uncompressed tar: whatever else an archive says is not trusted.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import json
import re
import typing as t

from ..errors import InputError
from ..text import printable
from .tar_archive import Member, Read, list_members, resolve

DOCUMENT_LIMIT: t.Final = 4 * 1024 * 1024  # bytes; containers/image takes no larger configuration either
LAYERS_LIMIT: t.Final = 125  # of an image; what Docker's layer store takes (moby, layer_store.go, maxLayerDepth)
LAYER_LIMIT: t.Final = 16 * 1024**3  # bytes of one layer; no Pi's card has room for that and the rest
INDEX_DEPTH: t.Final = 3  # indexes in indexes; BuildKit writes two

_DOCKER: t.Final = "manifest.json"
_OCI: t.Final = "index.json"
_ATTESTATION: t.Final = "vnd.docker.reference.type"  # BuildKit's provenance beside the image: no image itself
_DIGEST: t.Final = re.compile(r"sha256:([0-9a-f]{64})")
_NAMED_BY_DIGEST: t.Final = re.compile(r"(?:.*[/:])?([0-9a-f]{64})(?:\.json)?", re.DOTALL)
_GZIP: t.Final = b"\x1f\x8b"
_ZSTD: t.Final = b"\x28\xb5\x2f\xfd"
_MAGIC_SIZE: t.Final = 4

Json = dict[str, t.Any]
Members = collections.abc.Mapping[str, Member]


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """Where a layer lies in an archive.

    :param diff_id: hex; the SHA-256 that its uncompressed tar must have
    :param gzipped: whether the ``size`` bytes at ``offset`` are that tar compressed
    """

    diff_id: str
    offset: int
    size: int
    gzipped: bool


@dataclasses.dataclass(frozen=True, slots=True)
class ArchivedImage:
    """The one image of an archive. ``architecture`` as the configuration has it; ``config`` is its bytes."""

    config: bytes
    architecture: str
    layers: tuple[Layer, ...]

    @property
    def id(self) -> str:
        """The engine's id of the image, in hex."""
        return hashlib.sha256(self.config).hexdigest()


def is_gzip(start: bytes) -> bool:
    """Whether a file that begins so is compressed with gzip (RFC 1952, 2.3.1)."""
    return start.startswith(_GZIP)


def read_image_archive(read: Read, size: int, subject: str) -> ArchivedImage:
    """The image in an archive of ``size`` bytes; the layers' content is for the caller to check against ``diff_id``.

    :param read: ``read(offset, size)``, fewer bytes only at the end
    :param subject: what to call the archive in an error
    :raises InputError: ``image_invalid``
    """
    try:
        archive = _Archive(read, size)
        config, blobs = archive.docker_image() if _DOCKER in archive.members else archive.oci_image()
        return _image(archive, config, blobs)
    except ValueError as error:  # what is wrong with the tar among them
        raise unusable(subject, printable(str(error))) from error


def unusable(subject: str, seen: str) -> InputError:
    """``image_invalid``, with what is wrong with the archive."""
    return InputError(
        "image_invalid",
        f"The image archive {printable(subject)} cannot be used: {seen}; save that one image again (`docker save`).",
        archive=printable(subject),
        seen=seen,
    )


class _Archive:
    """The documents of an archive, each at most ``DOCUMENT_LIMIT`` bytes. What is wrong is a ``ValueError``."""

    def __init__(self, read: Read, size: int) -> None:
        self.read: t.Final = read
        self.members: t.Final[Members] = list_members(read, size)

    def docker_image(self) -> tuple[bytes, list[Member]]:
        """Configuration and layers by ``manifest.json``."""
        images = self._json(_DOCKER, list)
        if len(images) != 1:
            raise ValueError(f"its manifest.json has {len(images)} images, and must have one")
        entry = _object(images[0], "the image in its manifest.json")
        name = _text(entry, "Config", "its manifest.json")
        config = self.document(resolve(self.members, name))
        _check_name(name, config)
        layers = _list(entry, "Layers", "its manifest.json")
        return config, [resolve(self.members, _plain(layer)) for layer in layers]

    def oci_image(self) -> tuple[bytes, list[Member]]:
        """Configuration and layers by ``index.json``."""
        if _OCI not in self.members:
            raise ValueError("it has neither a manifest.json nor an index.json, so that it is no image")
        manifest = self._manifest(self._json(_OCI, dict), INDEX_DEPTH)
        config = self._checked(_object(manifest.get("config"), "`config` in its manifest"))
        layers = _list(manifest, "layers", "its manifest")
        return config, [self._blob(_object(layer, "a layer in its manifest")) for layer in layers]

    def document(self, member: Member) -> bytes:
        """A whole small file."""
        if member.size > DOCUMENT_LIMIT:
            raise ValueError(f"{member.name!r} has {member.size} bytes, and at most {DOCUMENT_LIMIT} are possible")
        return self.read(member.offset, member.size)

    def _manifest(self, index: Json, depth: int) -> Json:
        """The manifest of the one image of an index."""
        listed = [_object(item, "an entry of its index") for item in _list(index, "manifests", "its index")]
        images = [item for item in listed if not _is_attestation(item)]
        if len(images) != 1:
            raise ValueError(f"its index has {len(images)} images, and must have one")
        content = _object(_parse(self._checked(images[0]), "a manifest"), "a manifest")
        if "manifests" not in content:
            return content
        if depth == 0:
            raise ValueError("its indexes name each other")
        return self._manifest(content, depth - 1)

    def _blob(self, descriptor: Json) -> Member:
        digest = _DIGEST.fullmatch(_text(descriptor, "digest", "a descriptor"))
        if not digest:
            raise ValueError(f"it names a blob by {descriptor['digest']!r}, which is no SHA-256")
        return resolve(self.members, f"blobs/sha256/{digest[1]}")

    def _checked(self, descriptor: Json) -> bytes:
        member = self._blob(descriptor)
        data = self.document(member)
        _check_name(member.name, data)
        return data

    def _json(self, name: str, kind: type[t.Any]) -> t.Any:
        content = _parse(self.document(resolve(self.members, name)), name)
        if not isinstance(content, kind):
            raise ValueError(f"its {name} is no JSON {'list' if kind is list else 'object'}")
        return content


def _image(archive: _Archive, data: bytes, blobs: list[Member]) -> ArchivedImage:
    config = _object(_parse(data, "the configuration"), "its configuration")
    system, architecture = (_text(config, key, "its configuration") for key in ("os", "architecture"))
    if system != "linux":
        raise ValueError(f"the image is for {system!r}, and must be for linux")
    diff_ids = _diff_ids(config)
    if len(diff_ids) != len(blobs):
        raise ValueError(f"the configuration names {len(diff_ids)} layers, and {len(blobs)} are listed")
    layers = (_layer(archive, diff_id, blob) for diff_id, blob in zip(diff_ids, blobs, strict=True))
    return ArchivedImage(data, architecture, tuple(layers))


def _diff_ids(config: Json) -> list[str]:
    rootfs = _object(config.get("rootfs"), "`rootfs` in its configuration")
    matches = [_DIGEST.fullmatch(_plain(digest)) for digest in _list(rootfs, "diff_ids", "its configuration")]
    digests = [match[1] for match in matches if match]
    if len(digests) != len(matches):
        raise ValueError("its configuration names a layer by what is no SHA-256")
    if not 1 <= len(digests) <= LAYERS_LIMIT:
        raise ValueError(f"the image has {len(digests)} layers (1 to {LAYERS_LIMIT} are possible)")
    return digests


def _layer(archive: _Archive, diff_id: str, blob: Member) -> Layer:
    if blob.size > LAYER_LIMIT:
        raise ValueError(f"the layer {blob.name!r} has {blob.size} bytes, and at most {LAYER_LIMIT} are possible")
    magic = archive.read(blob.offset, min(_MAGIC_SIZE, blob.size))
    if magic == _ZSTD:
        raise ValueError(f"the layer {blob.name!r} is compressed with zstd, which is not read")
    return Layer(diff_id, blob.offset, blob.size, is_gzip(magic))


def _is_attestation(descriptor: Json) -> bool:
    annotations = descriptor.get("annotations")
    return isinstance(annotations, dict) and _ATTESTATION in annotations


def _check_name(name: str, data: bytes) -> None:
    """A file that is named by a digest must have it."""
    stated, found = _NAMED_BY_DIGEST.fullmatch(name), hashlib.sha256(data).hexdigest()
    if stated and stated[1] != found:
        raise ValueError(f"{name!r} has the SHA-256 {found[:16]}…, another than its name")


def _parse(data: bytes, name: str) -> t.Any:
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"{name} in it is no JSON") from None


def _object(value: object, what: str) -> Json:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no JSON object")
    return value


def _list(item: Json, key: str, where: str) -> list[t.Any]:
    value = item.get(key)
    if not isinstance(value, list):
        raise ValueError(f"`{key}` in {where} is no list")
    return value


def _text(item: Json, key: str, where: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise ValueError(f"`{key}` in {where} is no text")
    return value


def _plain(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("it names a layer by what is no text")
    return value


def load_manifest(config: str, layers: collections.abc.Sequence[str], tags: collections.abc.Sequence[str]) -> bytes:
    """The ``manifest.json`` of an archive for `docker load`, whose files are ``<config>.json`` and ``<layer>.tar``."""
    entry = {"Config": f"{config}.json", "Layers": [f"{layer}.tar" for layer in layers], "RepoTags": list(tags)}
    return (json.dumps([entry], sort_keys=True) + "\n").encode("ascii")
