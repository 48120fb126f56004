"""Small bundles for tests, honest ones and any other: the formats' own encoder, with no check in its way."""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import hmac
import pathlib
import zlib

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify.trust import Judgement
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import RefusedError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.bundle_zip import Layout, lay_out
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import (
    DEFLATED,
    STORED,
    FileEntry,
    Manifest,
    Requirements,
    encode_manifest,
)

RELEASED = 1_793_534_400  # 2026-11-01T12:00:00Z
KEY = b"the key of the tests"
DEPLOY = b"#!/bin/sh\nexit 0\n"
FILES = {
    "config/broker.conf": b"listener 8883\n" * 40,
    "config/empty": b"",
    "docker-compose.yml": b"services: {}\n",
    "local_code/run.sh": b"#!/bin/sh\necho run\n",
    "wheels/stored.whl": hashlib.sha256(b"does not shrink").digest() * 3,
}
NO_REQUIREMENTS = Requirements((), (), (), 0, 0, 0)


def sign(manifest: bytes) -> bytes:
    """What stands for an OpenSSH signature where hundreds are judged: keyed, and as hard to forge."""
    return hmac.digest(KEY, manifest, "sha256").hex().encode() + b"\n"


def judge(manifest: bytes, signature: bytes | None) -> Judgement:
    """Accepts what ``sign`` signed, byte for byte, and nothing else."""
    if signature is None or not hmac.compare_digest(signature, sign(manifest)):
        raise RefusedError("signature_invalid", "the signature is not one of this manifest; sign it again")
    return Judgement(True, "tester", "signed by tester")


def trusting(_manifest: bytes, signature: bytes | None) -> Judgement:
    """Accepts everything, as ``if_present`` does without a signature."""
    return Judgement(signature is not None, None, "not judged")


def deflate(content: bytes) -> bytes:
    """Any raw deflate stream will do for a reader."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(content) + stream.flush()


def describe(path: str, content: bytes, mode: int = 0o644) -> tuple[FileEntry, bytes]:
    """The manifest's entry for a file, and the bytes that stand for it in the zip."""
    packed = deflate(content)
    method = DEFLATED if content and len(packed) < len(content) else STORED
    packed = packed if method == DEFLATED else content
    return entry_of(path, content, packed, method, mode), packed


def entry_of(path: str, content: bytes, packed: bytes, method: str, mode: int = 0o644) -> FileEntry:
    """An entry that is true of both."""
    return FileEntry(
        path=path,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        mode=mode,
        crc32=zlib.crc32(content),
        method=method,
        compressed_size=len(packed),
        compressed_sha256=hashlib.sha256(packed).hexdigest(),
    )


@dataclasses.dataclass(frozen=True)
class Made:
    """A bundle in memory; ``data`` is the whole file."""

    manifest: Manifest
    layout: Layout
    data: bytes

    def write(self, folder: pathlib.Path) -> pathlib.Path:
        """Put it into ``folder``, under a bundle's name."""
        path = folder / f"trailcurrent-deployment-{self.manifest.version}.zip"
        path.write_bytes(self.data)
        return path


Described = tuple[FileEntry, bytes]


def assemble(
    described: collections.abc.Iterable[Described],
    *,
    deploy: bytes = DEPLOY,
    version: str = "1.2.0",
    signed: bool = True,
    edit: collections.abc.Callable[[bytes], bytes] = bytes,
) -> Made:
    """A bundle of exactly these entries, in order, whatever is wrong with them.

    :param edit: changes the manifest's bytes before they are signed
    """
    pairs = sorted(described, key=lambda pair: pair[0].path)
    deploy_entry, deploy_data = describe("deploy.sh", deploy, 0o755)
    manifest = Manifest(
        version=version,
        counter=1,
        created=RELEASED,
        released=RELEASED,
        oldest_version=None,
        database_one_way=False,
        requires=NO_REQUIREMENTS,
        images=(),
        firmware=(),
        deploy=deploy_entry,
        files=tuple(entry for entry, _packed in pairs),
    )
    manifest_bytes = edit(encode_manifest(manifest))
    signature = sign(manifest_bytes) if signed else None
    layout = lay_out(manifest, manifest_bytes, signature)
    own = [manifest_bytes, *([signature] if signature else [])]
    data = [*own, deploy_data, *(packed for _entry, packed in pairs)]
    parts = [placed.header + content for placed, content in zip(layout.entries, data, strict=True)]
    return Made(manifest, layout, b"".join(parts) + layout.tail)


def make(files: collections.abc.Mapping[str, bytes] = FILES, **options: object) -> Made:
    """An honest bundle of ``files``; those that end in ``.sh`` can be run."""
    modes = {path: 0o755 if path.endswith(".sh") else 0o644 for path in files}
    return assemble([describe(path, content, modes[path]) for path, content in files.items()], **options)
