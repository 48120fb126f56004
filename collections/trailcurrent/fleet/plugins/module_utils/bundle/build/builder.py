"""A bundle from its plan: the same bytes from the same input on any machine (docs/bundle-format.md, "Building").

Whatever is not finished lies in a scratch folder beside the destination, and the bundle is renamed from there when all
of it is on the disk. A build that is killed leaves no half bundle, and the next one takes its scratch away.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import pathlib
import tempfile
import typing as t

from ...errors import FleetError, InputError
from ...formats.bundle_zip import Layout, Placed, lay_out
from ...formats.manifest import (
    DEPLOY_NAME,
    MANIFEST_LIMIT,
    SIGNATURE_LIMIT,
    STORED,
    FileEntry,
    FirmwareEntry,
    ImageEntry,
    Manifest,
    Requirements,
    bundle_name,
    encode_manifest,
    layer_path,
    parse_manifest,
)
from ...formats.sshsig import parse_signature
from ...links import signature
from ...links.deflate import LEVELS, check_library, other_library
from ..parallel import Progress, silent
from . import zip_file
from .gather import Content, Gathered, gather
from .packing import Parts, pack
from .parts import PartStore, part_store
from .scratch import scratch_folder, writing
from .source import Source

DEFAULT_LEVEL: t.Final = 9
DISK_BLOCK: t.Final = 4096  # bytes; what a file takes at least on the Pi's ext4
MEBIBYTE: t.Final = 1024 * 1024

Warn = collections.abc.Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Built:
    """A bundle, or in check mode what it would be.

    :param sha256: of the whole file; None in check mode when there would be another one
    :param changed: whether it had to be written
    :param size: bytes of the whole file
    """

    path: pathlib.Path
    manifest: Manifest
    sha256: str | None
    changed: bool
    signed: bool
    size: int


def _unheard(sentence: str) -> None:
    """A warning that nobody hears."""


def build(
    source: Source,
    destination: pathlib.Path,
    *,
    key: pathlib.Path | None = None,
    level: int = DEFAULT_LEVEL,
    cache: pathlib.Path | None = None,
    progress: Progress = silent,
    warn: Warn = _unheard,
    check: bool = False,
) -> Built:
    """Have the bundle of ``source`` at ``destination``, which is not touched when it is that very bundle already.

    :param destination: the file, or a folder that is there; then the file in it has the usual name
    :param key: what to sign with; without one, a signature that is there and true of the manifest is kept
    :param level: of compression, 1 to 9
    :param cache: where compressed parts are kept for the next build; it may be used by several builds at once
    :param progress: called with what is done (``building image …``, ``reading image …``, ``hashing``, ``compressing``,
        ``comparing``, ``writing``), bytes done and bytes in all, both 0 where nobody knows them
    :param warn: called with a sentence when the bytes may differ from those built elsewhere
    :param check: say what would be, and write nothing but ``cache``; an engine builds its images nevertheless
    :raises FleetError: what ``gather``, ``pack`` and ``signature.sign`` raise; ``state_unwritable``, ``disk_full``,
        ``requirement_unmet``, ``invalid_option``
    """
    check_library()
    if level not in LEVELS:
        raise InputError("invalid_option", f"a bundle cannot be compressed at level {level}; give 1 to {LEVELS[-1]}")
    signer = None if key is None else _Key(key, signature.public_key(key))
    if other_library():
        warn(other_library())
    name = bundle_name(source.version)
    with writing(destination):
        path = (destination / name if destination.is_dir() else destination).absolute()
    with scratch_folder(_workplace(path, cache, check=check), path.name) as scratch:
        found = gather(source, scratch, progress)
        with part_store(cache or scratch, level) as store:
            parts = pack([*found.contents, found.deploy], store, level, progress)
            manifest = _manifest(source, found, parts)
            bundle = _Bundle(manifest, found, parts, store, progress)
            return bundle.put(path, scratch / name, signer, check=check)


def _workplace(path: pathlib.Path, cache: pathlib.Path | None, *, check: bool) -> pathlib.Path:
    """On the disk that the bundle comes to: what is unpacked for it takes as much room as it does."""
    return (cache or pathlib.Path(tempfile.gettempdir())) if check else path.parent


class _Key(t.NamedTuple):
    """What to sign with, and whose signatures these are."""

    path: pathlib.Path
    public: bytes


class _Bundle:
    """A manifest with what its zip is written from."""

    def __init__(self, manifest: Manifest, found: Gathered, parts: Parts, store: PartStore, progress: Progress) -> None:
        self._manifest = manifest
        self._encoded = _encode(manifest)
        # By their names in the zip: the script at its root is another file than what a release may have by its name.
        self._contents = {f"{manifest.folder}/{content.path}": content for content in found.contents}
        self._contents[DEPLOY_NAME] = found.deploy
        self._parts = parts
        self._store = store
        self._progress = progress

    def put(self, path: pathlib.Path, scratch: pathlib.Path, key: _Key | None, *, check: bool) -> Built:
        """Have it at ``path``, by way of ``scratch``."""
        old = self._old_signature(path)
        signed = self._sign(old, key, check=check)
        layout = lay_out(self._manifest, self._encoded, signed)
        own = [self._encoded, *([signed] if signed is not None else [])]
        unsigned = key is not None and signed is None
        sha256 = None if unsigned else zip_file.digest_if_same(path, layout, own, self._progress)
        changed = sha256 is None
        if changed and not check:
            sha256 = self._write(path, scratch, layout, own)
        return Built(path, self._manifest, sha256, changed, bool(signed or key), layout.size)

    def _old_signature(self, path: pathlib.Path) -> bytes | None:
        """The signature that is there, if it is one of this manifest."""
        head = zip_file.head_of(path)
        if head is None or head.signature is None or head.manifest != self._encoded:
            return None
        try:
            signature.check(head.manifest, head.signature, path.name)
        except FleetError:
            return None
        return head.signature

    def _sign(self, old: bytes | None, key: _Key | None, *, check: bool) -> bytes | None:
        """The old signature where it is one by ``key``: some keys sign differently each time, some want a touch."""
        if key is None or (old is not None and parse_signature(old, "the signature").public_key == key.public):
            return old
        return None if check else signature.sign(self._encoded, key.path)

    def _write(
        self,
        path: pathlib.Path,
        scratch: pathlib.Path,
        layout: Layout,
        own: collections.abc.Sequence[bytes],
    ) -> str:
        heads = {placed.name: data for placed, data in zip(layout.entries, own, strict=False)}

        def data_of(placed: Placed) -> collections.abc.Iterator[bytes]:
            if placed.name in heads:
                return iter([heads[placed.name]])
            content = self._contents[placed.name]
            if placed.entry.method == STORED:
                return content.blocks()
            return self._store.blocks(self._parts[content])

        sha256 = zip_file.write_zip(scratch, layout, data_of, self._progress)
        zip_file.publish(scratch, path)
        return sha256


def _encode(manifest: Manifest) -> bytes:
    """The manifest's bytes, read back: what no Pi would accept must not leave here.

    :raises InputError: ``source_invalid``, ``manifest_invalid``, ``unsafe_path``
    """
    encoded = encode_manifest(manifest)
    if len(encoded) > MANIFEST_LIMIT:
        raise InputError(
            "source_invalid",
            f"The bundle has {len(manifest.files)} files, and its manifest {len(encoded)} bytes, where {MANIFEST_LIMIT}"
            " are possible; pack some folders into archives.",
        )
    parse_manifest(encoded, "this bundle")
    return encoded


def _manifest(source: Source, found: Gathered, parts: Parts) -> Manifest:
    files = tuple(_entry(content, parts) for content in found.contents)
    _check_digests(found, parts)
    return _with_disk(
        Manifest(
            version=source.version,
            counter=source.counter,
            created=source.released,  # a clock's time would make each build another one
            released=source.released,
            oldest_version=source.oldest_version,
            database_one_way=source.database_one_way,
            requires=Requirements(source.os, source.python, found.architectures, 0, 0, 0),
            images=_images(found),
            firmware=_firmware(found),
            deploy=_entry(found.deploy, parts),
            files=files,
        )
    )


def _entry(content: Content, parts: Parts) -> FileEntry:
    return parts[content].entry(content.path, content.mode)


def _check_digests(found: Gathered, parts: Parts) -> None:
    """Whether what was judged is what was packed.

    :raises InputError: ``source_invalid``
    """
    judged = {item.path: item.image.sha256 for item in found.firmware}
    judged |= {layer_path(layer.digest): layer.digest for image in found.images for layer in image.layers}
    for content in found.contents:
        if judged.get(content.path, parts[content].sha256) != parts[content].sha256:
            raise content.changed()


def _images(found: Gathered) -> tuple[ImageEntry, ...]:
    return tuple(
        ImageEntry(
            service=image.service,
            name=image.name,
            architecture=image.architecture,
            config=hashlib.sha256(image.config).hexdigest(),
            layers=tuple(layer.digest for layer in image.layers),
            size=sum(layer.size for layer in image.layers),
        )
        for image in found.images
    )


def _firmware(found: Gathered) -> tuple[FirmwareEntry, ...]:
    return tuple(
        FirmwareEntry(
            type=item.type,
            addr=item.addr,
            path=item.path,
            chip=item.image.chip,
            project=item.image.project,
            version=item.image.version,
            sha256=item.image.sha256,
            required=item.required,
        )
        for item in found.firmware
    )


def _with_disk(manifest: Manifest) -> Manifest:
    """The manifest with the room that its release takes on a Pi, each rounded up to whole MiB."""
    layers = {layer for image in manifest.images for layer in image.layers}
    files = {entry.path: entry for entry in manifest.files}
    # The sizes and the signature stand in the bundle themselves: their room is added, not measured.
    bundle = lay_out(manifest, encode_manifest(manifest), b"").size + SIGNATURE_LIMIT
    requires = dataclasses.replace(
        manifest.requires,
        disk_download=_rounded(bundle, MEBIBYTE),
        disk_extraction=_rounded(sum(_rounded(entry.size, DISK_BLOCK) for entry in manifest.files), MEBIBYTE),
        disk_images=_rounded(sum(files[layer_path(layer)].size for layer in layers), MEBIBYTE),
    )
    return dataclasses.replace(manifest, requires=requires)


def _rounded(size: int, step: int) -> int:
    return -(-size // step) * step
