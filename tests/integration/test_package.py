"""package.yml and verify.yml as an operator runs them: a real release, signed, the same bytes everywhere."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAYBOOK = pathlib.Path(sys.executable).with_name("ansible-playbook")
BUNDLE = "trailcurrent-deployment-1.0.0.zip"
PRINCIPAL = "releases@virtual-rv.example"


@dataclasses.dataclass(frozen=True)
class Laptop:
    """A user's machine: where the demo's release is made, and the settings of the user's shell."""

    directory: pathlib.Path
    environment: collections.abc.Mapping[str, str] = dataclasses.field(default_factory=dict)
    umask: int = 0o022

    @property
    def bundle(self) -> pathlib.Path:
        return self.directory / "bundles" / BUNDLE

    @property
    def signers(self) -> pathlib.Path:
        return self.directory / "keys/allowed_signers"

    def play(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            PLAYBOOK,
            ROOT / "playbooks" / name,
            "-i",
            ROOT / "inventory/demo",
            "-e",
            f"demo_dir={self.directory}",
        ]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        return subprocess.run(
            [*command, "-e", f"deployment_bundle_state_dir={self.directory}/state", *arguments],
            cwd=ROOT,
            env=environment | self.environment,
            umask=self.umask,
            capture_output=True,
            text=True,
            check=False,
        )

    def package(self, *arguments: str) -> str:
        done = self.play("package.yml", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def verify(self, bundle: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.play("verify.yml", "-e", f"fleet_bundle={bundle}", *arguments)


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """A laptop on which the demo's first release was packaged, whole: images, firmware, payload."""
    made = Laptop(tmp_path_factory.mktemp("demo"))
    output = made.package()
    assert "changed=1" in output
    assert "TrailCurrent release 1.0.0" in output
    assert "There is no earlier bundle beside it" in output
    return made


def test_second_run_that_changes_anything_is_found(laptop: Laptop) -> None:
    before = laptop.bundle.stat()
    assert "changed=0" in laptop.package()
    after = laptop.bundle.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_bytes_that_depend_on_folder_locale_time_zone_umask_or_cache_are_found(
    laptop: Laptop, tmp_path: pathlib.Path
) -> None:
    settings = {"LC_ALL": "C.UTF-8", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7"}
    other = Laptop(tmp_path / "elsewhere", settings, umask=0o077)
    shutil.copytree(laptop.directory / "keys", other.directory / "keys")
    other.package("-e", f"deployment_bundle_cache={tmp_path}/cache")
    assert other.bundle.read_bytes() == laptop.bundle.read_bytes()


def test_readers_of_zips_and_ssh_keygen_take_it(laptop: Laptop, tmp_path: pathlib.Path) -> None:
    subprocess.run(["unzip", "-tq", laptop.bundle], check=True, capture_output=True)
    with zipfile.ZipFile(laptop.bundle) as opened:
        assert opened.testzip() is None
        names = opened.namelist()
    assert names[:3] == [
        "trailcurrent-release-1.0.0/manifest.json",
        "trailcurrent-release-1.0.0/manifest.json.sig",
        "deploy.sh",
    ]
    assert {name.split("/")[1] for name in names[3:]} >= {
        "config",
        "docker-compose.yml",
        "firmware",
        "images",
        "wheels",
    }
    subprocess.run(
        ["unzip", "-q", laptop.bundle, "trailcurrent-release-1.0.0/manifest.json*", "-d", tmp_path], check=True
    )
    manifest = tmp_path / "trailcurrent-release-1.0.0/manifest.json"
    by_hand = ["ssh-keygen", "-Y", "verify", "-n", "trailcurrent-deployment", "-I", PRINCIPAL]
    with manifest.open("rb") as content:
        subprocess.run(
            [*by_hand, "-f", laptop.signers, "-s", f"{manifest}.sig"], stdin=content, check=True, capture_output=True
        )


def test_verify_shows_who_signed_and_what_is_in_it(laptop: Laptop) -> None:
    done = laptop.verify(laptop.bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=0" in done.stdout
    assert f"signed by {PRINCIPAL}" in done.stdout
    assert "trailcurrent-in-vehicle-backend:latest" in done.stdout
    assert "gnss_module" in done.stdout


def test_byte_that_was_changed_on_the_way_is_found_and_named(laptop: Laptop, tmp_path: pathlib.Path) -> None:
    copy = tmp_path / BUNDLE
    data = bytearray(laptop.bundle.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    done = laptop.verify(copy)
    assert done.returncode == 2
    assert "code: bundle_damaged" in done.stdout
    assert "trailcurrent-release-1.0.0/" in done.stdout


def test_key_that_nobody_trusts_is_refused(laptop: Laptop, tmp_path: pathlib.Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    public = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    (tmp_path / "signers").write_text(f"somebody@else.example {public}\n")
    words = ("-e", f"fleet_allowed_signers={tmp_path}/signers", "-e", f"deployment_bundle_state_dir={tmp_path}/state")
    done = laptop.verify(laptop.bundle, *words)
    assert done.returncode == 2
    assert "code: signer_unknown" in done.stdout


def test_next_release_says_what_changed_and_what_it_costs(laptop: Laptop) -> None:
    output = laptop.package("-e", "demo_version=1.1.0", "--check", "--diff")
    assert not (laptop.directory / "bundles/trailcurrent-deployment-1.1.0.zip").exists()
    assert "changed=1" in output
    assert "Against release 1.0.0: " in output
    assert "a Pi that has it needs " in output
    assert "+++ after: release 1.1.0" in output


def errors(laptop: Laptop, folder: pathlib.Path, rvs: dict, *arguments: str) -> dict[str, str]:
    """What firmware.yml reports of each RV; there is no RV behind these names, so none comes to its modules."""
    local = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "python_runtime_enabled": False,
    }
    local |= {"mcu_firmware_mongodb_uri": "mongodb://127.0.0.1:1", "mcu_firmware_mongodb_timeout": 0.2}
    hosts = folder / "hosts.yml"
    hosts.write_text(yaml.safe_dump({"rvs": {"hosts": rvs, "vars": local}}))
    report = folder / "report.json"
    done = laptop.play("firmware.yml", "-i", str(hosts), "-e", f"fleet_report_file={report}", *arguments)
    assert done.returncode == 2, done.stdout
    return {name: rv["error"] for name, rv in json.loads(report.read_text())["rvs"].items()}


def test_each_rv_has_its_own_policy_and_its_own_bundle(laptop: Laptop, tmp_path: pathlib.Path) -> None:
    plain = str(laptop.directory / "release-1.0.0/firmware")
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(laptop.bundle.read_bytes()[:-1])
    rvs = {
        "trusting": {"fleet_firmware_dir": plain, "fleet_signature_policy": "if_present"},
        "careful": {"fleet_firmware_dir": plain, "fleet_signature_policy": "required"},
        "roundabout": {"mcu_firmware_source": plain, "fleet_signature_policy": "required"},
        "modern": {"fleet_bundle": str(laptop.bundle), "fleet_signature_policy": "required"},
        "unlucky": {"fleet_bundle": str(damaged)},
    }
    found = errors(laptop, tmp_path, rvs)
    assert "the registry of modules" in found["trusting"]
    assert "is in no signed bundle, and the policy is `required`" in found["careful"]
    assert "is in no signed bundle, and the policy is `required`" in found["roundabout"]
    assert "the registry of modules" in found["modern"]
    assert "ends at byte" in found["unlucky"]


def test_policy_holds_whatever_tags_are_asked_for(laptop: Laptop, tmp_path: pathlib.Path) -> None:
    rvs = {"careful": {"fleet_firmware_dir": str(laptop.directory / "release-1.0.0/firmware")}}
    words = ("--tags", "mcu_firmware", "-e", "fleet_signature_policy=required")
    assert "is in no signed bundle" in errors(laptop, tmp_path, rvs, *words)["careful"]


def test_relative_path_is_that_of_the_users_folder(laptop: Laptop) -> None:
    command = [PLAYBOOK, ROOT / "playbooks/verify.yml", "-e", f"fleet_bundle={BUNDLE}"]
    words = ["-e", "fleet_allowed_signers=../keys/allowed_signers", "-e", "deployment_bundle_state_dir=../state"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PWD": str(laptop.bundle.parent)}
    done = subprocess.run(
        [*command, *words], cwd=laptop.bundle.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_inventory_says_of_rvs_is_not_meant_for_the_laptop(laptop: Laptop) -> None:
    done = laptop.verify(laptop.bundle, "-i", "rv1,", "-e", "fleet_signature_policy=required")
    assert done.returncode == 0, done.stdout + done.stderr
    group = laptop.directory / "become.yml"
    group.write_text("all: {vars: {ansible_become: true, ansible_become_method: doas, ansible_connection: ssh}}\n")
    assert laptop.verify(laptop.bundle, "-i", str(group)).returncode == 0


def test_bundle_of_the_old_kind_is_shown_only_where_the_policy_allows(laptop: Laptop, tmp_path: pathlib.Path) -> None:
    old = tmp_path / "trailcurrent-deployment-0.9.1.zip"
    with zipfile.ZipFile(old, "w") as archive:
        archive.writestr("deploy.sh", "exit 0\n")
        archive.write(
            laptop.directory / "release-1.0.0/firmware/wired/gnss_module/firmware.bin",
            "firmware/wired/gnss_module/firmware.bin",
        )
    assert "code: bundle_legacy" in laptop.verify(old).stdout
    done = laptop.verify(old, "-e", "fleet_signature_policy=if_present")
    assert done.returncode == 0
    assert "nothing vouches for it" in done.stdout
    assert "gnss_module/firmware.bin" in done.stdout


def test_older_release_than_the_deployed_one_is_refused_unless_asked_for(
    laptop: Laptop, tmp_path: pathlib.Path
) -> None:
    newer = tmp_path / "newer"
    laptop.package(
        *("-e", "demo_version=1.1.0", "-e", f"fleet_bundle_dir={newer}"),
        *("-e", '{"demo_images": false, "deployment_bundle_payload": false}'),
    )
    deployed = ("-e", f"fleet_deployed={newer}/trailcurrent-deployment-1.1.0.zip")
    done = laptop.verify(laptop.bundle, *deployed)
    assert done.returncode == 2
    assert "code: downgrade" in done.stdout
    assert laptop.verify(laptop.bundle, *deployed, "-e", '{"fleet_allow_downgrade": true}').returncode == 0
