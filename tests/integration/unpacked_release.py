"""A release as it lies on a Pi after `unzip`, and a Pi's folders to run its deploy.sh in.

pi = Pi(tmp_path)
release = pi.unpack("1.2.0", {"firmware/wired/gnss_module/firmware.bin": b"..."}, key=key)
done = pi.deploy()                # sh deploy.sh; TRAILCURRENT_... name this Pi's own folders
assert "is signed by" in done.stdout
"""

from __future__ import annotations

import base64
import collections.abc
import dataclasses
import hashlib
import io
import os
import pathlib
import subprocess
import tarfile
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
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.sshsig import armour

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
FIRMWARE: t.Final = "firmware/wired/gnss_module/firmware.bin"
FILES: t.Final = {
    "LICENSE": b"words\n",
    "config/mosquitto.conf": b"listener 8883\n",
    FIRMWARE: bytes(range(256)) * 64,
    "wheels/one-1.0-py3-none-any.whl": b"a wheel",
}
"""A small release, which lacks its own Python: deploy.sh says so when it has verified all of it."""
VERIFIED: t.Final = "does not carry its own playbooks"
PROJECT: t.Final = "project/trailcurrent-fleet-1.0.0.tar.gz"
NEEDED: t.Final = "project/community-crypto-3.0.5.tar.gz"
PLAYER: t.Final = b"""
import os, pathlib, sys
def main():
    os.environ.pop("PWD", None)  # of the shell that starts a program whose path has spaces
    collections = pathlib.Path(os.environ["ANSIBLE_COLLECTIONS_PATH"], "ansible_collections")
    print("played", (collections / "trailcurrent/fleet/NAME").read_text())
    print(os.getcwd(), sorted(os.environ.items()), repr(sys.stdin.read()))
"""

ALONE: t.Final = ["unshare", "--map-root-user", "--mount"]  # what is mounted there is seen by that process alone

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


def _archive(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def playable(name: str) -> dict[str, bytes]:
    """A small release whose `ansible-playbook` says ``name``, which lies in its collection, and what it is given."""
    info, stream = "player-1.0.dist-info", io.BytesIO()
    wheel = {
        "player.py": PLAYER,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: player\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": b"[console_scripts]\nansible-playbook = player:main\n",
    }
    with zipfile.ZipFile(stream, "w") as zipped:
        for path, content in {**wheel, f"{info}/RECORD": "".join(f"{path},,\n" for path in wheel).encode()}.items():
            zipped.writestr(path, content)
    lock = f"player==1.0 --hash=sha256:{hashlib.sha256(stream.getvalue()).hexdigest()}\n".encode()
    locks = {f"wheels/requirements-{python}.lock": lock for python in REQUIRES.python}
    projects = {PROJECT: _archive("NAME", name.encode()), NEEDED: _archive("NAME", b"another collection")}
    return {**locks, "wheels/player-1.0-py3-none-any.whl": stream.getvalue(), **projects}


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

    def python(self, prelude: str) -> str:
        """A Python for deploy.sh whose program begins with ``prelude``: what no test can do to the system itself."""
        path = self.home.parent / "python"
        path.with_suffix(".py").write_text(prelude + "\n")
        path.write_text(f"#!/bin/sh\n{{ cat '{path}.py'; cat; }} | /usr/bin/python3 \"$@\"\n")
        path.chmod(0o755)
        return str(path)

    def left(self) -> list[str]:
        """The environments that deployments left."""
        return sorted(path.name for path in (self.state / "deploy").glob("*") if path.is_dir())


def alone(mounts: str) -> list[str]:
    """deploy.sh, seeing the system with these mounts over it."""
    return [*ALONE, "sh", "-ec", f"{mounts}\nexec sh deploy.sh"]


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a deploy.sh that did not deploy."""
    assert done.returncode != 0, done.stdout
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Release ")
    assert lines[0].endswith(".")
    return lines[0]


# --- what may become of a release on its way ---


def change_byte(release: pathlib.Path) -> None:
    content = bytearray((release / FIRMWARE).read_bytes())
    content[-1] ^= 1
    (release / FIRMWARE).write_bytes(content)


def cut(release: pathlib.Path) -> None:
    (release / FIRMWARE).write_bytes((release / FIRMWARE).read_bytes()[:-1])


def lengthen(release: pathlib.Path) -> None:
    with (release / FIRMWARE).open("ab") as file:
        file.write(b"\0")


def remove(release: pathlib.Path) -> None:
    (release / FIRMWARE).unlink()


def link_file(release: pathlib.Path) -> None:
    (release / FIRMWARE).rename(release.parent / "same.bin")
    (release / FIRMWARE).symlink_to(release.parent / "same.bin")


def link_folder(release: pathlib.Path) -> None:
    (release / "firmware").rename(release.parent / "elsewhere")
    (release / "firmware").symlink_to(release.parent / "elsewhere")


def link_release(release: pathlib.Path) -> None:
    release.rename(release.parent / "elsewhere")
    release.symlink_to(release.parent / "elsewhere")


def pipe(release: pathlib.Path) -> None:
    remove(release)
    os.mkfifo(release / FIRMWARE)


def folder_for_file(release: pathlib.Path) -> None:
    remove(release)
    (release / FIRMWARE).mkdir()


def stray_wheel(release: pathlib.Path) -> None:
    (release / "wheels/one-1.0-1-py3-none-any.whl").write_bytes(b"a wheel that pip would like better")


def stray_link(release: pathlib.Path) -> None:
    (release / "wheels/two.whl").symlink_to("/nowhere")


def stray_odd_name(release: pathlib.Path) -> None:
    (release / "a\nb\udcff").write_bytes(b"")


def other_script(release: pathlib.Path) -> None:
    with (release.parent / "deploy.sh").open("a") as file:
        file.write("# one more line\n")


def manifest_link(release: pathlib.Path) -> None:
    (release / "manifest.json").rename(release.parent / "manifest.json")
    (release / "manifest.json").symlink_to("../manifest.json")


def stray_folder(release: pathlib.Path) -> None:
    (release / "local_code/cache").mkdir(parents=True)


def junk_behind_signature(release: pathlib.Path) -> None:
    with (release / "manifest.json.sig").open("ab") as file:
        file.write(b"junk\n")


def dos_lines_in_signature(release: pathlib.Path) -> None:
    path = release / "manifest.json.sig"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def long_signature(release: pathlib.Path) -> None:
    with (release / "manifest.json.sig").open("ab") as file:
        file.truncate(1 << 20)


def filled_reserved_field(release: pathlib.Path) -> None:
    """ssh-keygen takes it, though nobody signed it."""
    path = release / "manifest.json.sig"
    blob = base64.b64decode(b"".join(path.read_bytes().splitlines()[1:-1]))
    end = blob.index(NAMESPACE.encode()) + len(NAMESPACE)
    path.write_bytes(armour(blob[:end] + b"\0\0\0\4junk" + blob[end + 4 :]))


def no_manifest(release: pathlib.Path) -> None:
    (release / "manifest.json").unlink()


def changed_manifest(release: pathlib.Path) -> None:
    path = release / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"counter": 1', b'"counter": 2'))
