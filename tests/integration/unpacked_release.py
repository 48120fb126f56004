"""A release as it lies on a Pi after `unzip`, and a Pi's folders to run its deploy.sh in.

pi = Pi(tmp_path)
release = pi.unpack("1.2.0", {"firmware/wired/gnss_module/firmware.bin": b"..."}, key=key)
done = pi.deploy()                # sh deploy.sh; TRAILCURRENT_... name this Pi's own folders
assert "is signed by" in done.stdout
"""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import pathlib
import subprocess
import typing as t
import zipfile
import zlib

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import (
    STORED,
    FileEntry,
    Manifest,
    Requirements,
    encode_manifest,
    release_folder,
)

ROOT: t.Final = pathlib.Path(__file__).resolve().parents[2]
BUNDLE: t.Final = ROOT / "collections/trailcurrent/fleet/plugins/module_utils/bundle"
NAMESPACE: t.Final = "trailcurrent-deployment"
RELEASED: t.Final = 1_793_534_400  # 2026-11-01
REQUIRES: t.Final = Requirements(
    os=("debian-12", "debian-13"),
    python=("3.11", "3.12", "3.13"),
    architectures=("aarch64", "x86_64"),
    disk_download=0,
    disk_extraction=0,
    disk_images=0,
)
FILES: t.Final = {
    "LICENSE": b"words\n",
    "config/mosquitto.conf": b"listener 8883\n",
    "firmware/wired/gnss_module/firmware.bin": bytes(range(256)) * 64,
    "wheels/one-1.0-py3-none-any.whl": b"a wheel",
}
"""A small release, which lacks its own Python: deploy.sh says so when it has verified all of it."""
VERIFIED: t.Final = "does not carry its own playbooks"

Content = collections.abc.Mapping[str, bytes | pathlib.Path]


def deploy_script(version: str) -> bytes:
    """deploy.sh as the builder puts it into the bundle of this version."""
    return (BUNDLE / "deploy.sh").read_bytes().replace(b"@VERSION@", version.encode())


def _entry(path: str, content: bytes, mode: int = 0o644) -> FileEntry:
    size, digest = len(content), hashlib.sha256(content).hexdigest()
    return FileEntry(path, size, digest, mode, zlib.crc32(content), STORED, size, digest)


def make_manifest(version: str, files: collections.abc.Mapping[str, bytes], **changes: t.Any) -> Manifest:
    """The manifest of a release of these files."""
    manifest = Manifest(
        version=version,
        counter=1,
        created=RELEASED,
        released=RELEASED,
        oldest_version=None,
        database_one_way=False,
        requires=REQUIRES,
        images=(),
        firmware=(),
        deploy=_entry("deploy.sh", deploy_script(version), 0o755),
        files=tuple(_entry(path, files[path]) for path in sorted(files)),
    )
    return dataclasses.replace(manifest, **changes)


def make_key(folder: pathlib.Path, name: str = "key") -> pathlib.Path:
    """A new Ed25519 key; its public half is beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return path


def sign(manifest: bytes, key: pathlib.Path, namespace: str = NAMESPACE) -> bytes:
    """The armoured signature, as ssh-keygen makes it."""
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(key)]
    return subprocess.run(command, input=manifest, check=True, capture_output=True).stdout


def bundle_entries(
    version: str, files: Content, key: pathlib.Path | None, namespace: str = NAMESPACE, **changes: t.Any
) -> dict[str, bytes]:
    """All that the bundle of this version holds, in its order."""
    content = {path: part if isinstance(part, bytes) else part.read_bytes() for path, part in files.items()}
    manifest, folder = encode_manifest(make_manifest(version, content, **changes)), release_folder(version)
    signature = {f"{folder}/manifest.json.sig": sign(manifest, key, namespace)} if key else {}
    head = {f"{folder}/manifest.json": manifest, **signature, "deploy.sh": deploy_script(version)}
    return {**head, **{f"{folder}/{path}": content[path] for path in sorted(content)}}


def write_zip(path: pathlib.Path, entries: collections.abc.Mapping[str, bytes]) -> None:
    """The entries as a plain zip, without folders' entries."""
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in entries.items():
            zipped.writestr(name, content)


class Pi:
    """A Pi's folders below ``directory``: what is at home, what set-up wrote, what deployments leave."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.home = directory / "home of pi"
        self.etc = directory / "etc"
        self.state = directory / "state"
        self.home.mkdir()
        self.etc.mkdir()

    @property
    def settings(self) -> dict[str, str]:
        return {"TRAILCURRENT_ETC": str(self.etc), "TRAILCURRENT_STATE_DIR": str(self.state)}

    def unpack(
        self, version: str = "1.2.0", files: Content = FILES, key: pathlib.Path | None = None, **changes: t.Any
    ) -> pathlib.Path:
        """Write the bundle's files over this home, modes lost; return the release's folder."""
        for name, content in bundle_entries(version, files, key, **changes).items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return self.home / release_folder(version)

    def allow(self, key: pathlib.Path, principal: str = "release@example.com", options: str = "") -> None:
        """Trust a key, as set-up does."""
        public = key.with_suffix(".pub").read_text().strip()
        with (self.etc / "allowed_signers").open("a") as file:
            file.write(f'{principal} namespaces="{NAMESPACE}"{options} {public}\n')

    def deploy(
        self,
        *command: str,
        cwd: pathlib.Path | None = None,
        environment: collections.abc.Mapping[str, str] | None = None,
        before: str = "",
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` (`sh deploy.sh` unless given) at home, after the shell commands ``before``.

        :param environment: instead of a plain login's
        """
        usual = {"HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin"} if environment is None else environment
        return subprocess.run(
            ["/bin/sh", "-c", f'{before}\nexec "$@"', "sh", *(command or ("/bin/sh", "deploy.sh"))],
            cwd=cwd or self.home,
            env={**usual, **self.settings, **variables},
            check=False,
            capture_output=True,
            text=True,
        )

    def left(self) -> list[str]:
        """The environments that deployments left."""
        return sorted(path.name for path in (self.state / "deploy").glob("*") if path.is_dir())


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a deploy.sh that did not deploy."""
    assert done.returncode != 0, done.stdout
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Release ")
    assert lines[0].endswith(".")
    return lines[0]
