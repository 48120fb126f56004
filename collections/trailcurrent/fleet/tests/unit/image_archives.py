"""Archives of container images for tests, in the layouts that engines write, by Python's own ``tarfile``."""

from __future__ import annotations

import collections.abc
import dataclasses
import gzip
import hashlib
import io
import json
import tarfile
import typing as t

Entry = tuple[tarfile.TarInfo, bytes]
Files = dict[str, bytes]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar(
    files: collections.abc.Mapping[str, bytes] | collections.abc.Iterable[Entry], form: int = tarfile.USTAR_FORMAT
) -> bytes:
    """A tar of regular files, or of entries as they are given."""
    entries = [entry(*item) for item in files.items()] if isinstance(files, collections.abc.Mapping) else files
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    return info, content


@dataclasses.dataclass
class Image:
    """An image whose layers are small real tars, and what an archive says of it; tests spoil a part."""

    layers: list[bytes]
    architecture: str = "arm64"
    os: str = "linux"
    tags: tuple[str, ...] = ("trailcurrent-in-vehicle-backend:latest",)
    changes: dict[str, t.Any] = dataclasses.field(default_factory=dict)

    @property
    def config(self) -> bytes:
        rootfs = {"type": "layers", "diff_ids": [f"sha256:{sha256(layer)}" for layer in self.layers]}
        content = {"architecture": self.architecture, "os": self.os, "rootfs": rootfs, "config": {"Cmd": ["/x"]}}
        return json.dumps(content | self.changes).encode()

    @property
    def id(self) -> str:
        return sha256(self.config)

    def docker_entry(self) -> dict[str, t.Any]:
        layers = [f"{sha256(layer)}/layer.tar" for layer in self.layers]
        return {"Config": f"{self.id}.json", "RepoTags": list(self.tags), "Layers": layers}

    def docker_files(self) -> Files:
        """The files of `docker save` before Docker 25."""
        layers = {f"{sha256(layer)}/layer.tar": layer for layer in self.layers}
        return {f"{self.id}.json": self.config, **layers, "manifest.json": json.dumps([self.docker_entry()]).encode()}

    def oci_files(self, *, compress: bool = True, nested: bool = False) -> Files:
        """The files of an OCI archive, as BuildKit writes it, with ``nested`` in an index beside an attestation."""
        blobs = [gzip.compress(layer, mtime=0) if compress else layer for layer in self.layers]
        manifest = {
            "schemaVersion": 2,
            "config": {"digest": f"sha256:{self.id}", "size": len(self.config)},
            "layers": [{"digest": f"sha256:{sha256(blob)}", "size": len(blob)} for blob in blobs],
        }
        contents = [self.config, *blobs, json.dumps(manifest).encode()]
        top: dict[str, t.Any] = {"manifests": [{"digest": f"sha256:{sha256(contents[-1])}"}]}
        if nested:
            attestation = b'{"config": {}, "layers": []}'
            about = {"vnd.docker.reference.type": "attestation-manifest"}
            top["manifests"].append({"digest": f"sha256:{sha256(attestation)}", "annotations": about})
            contents += [attestation, json.dumps(top).encode()]
            top = {"manifests": [{"digest": f"sha256:{sha256(contents[-1])}"}]}
        blobs_by_name = {f"blobs/sha256/{sha256(content)}": content for content in contents}
        return {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps(top).encode(),
            **blobs_by_name,
        }


def small_image(**options: t.Any) -> Image:
    """Two layers of a file each."""
    return Image([tar({"etc/base": b"base" * 300}), tar({"srv/start": b"#!/bin/sh\n"})], **options)
