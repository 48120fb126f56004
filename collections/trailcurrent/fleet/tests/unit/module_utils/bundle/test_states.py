"""The module's states as a playbook uses them: policy, going back, check mode, and what is said."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import time
import typing as t
import zipfile

import pytest
from hostile_bundles import FILES, make

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle import states
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import bundle_name, encode_manifest
from ansible_collections.trailcurrent.fleet.plugins.modules import deployment_bundle
from virtual_rv.image import make_image

DEFAULTS = {name: option.get("default") for name, option in deployment_bundle.SPEC.items()}
PLAN = (
    "version: {version}\ncounter: {counter}\nreleased: 2026-11-01T12:00:00Z\n"
    "config: config\nfirmware: {{folder: firmware}}\n"
)


@dataclasses.dataclass
class Desk:
    """A folder with a release's source, a key, the file that trusts it, and a state directory."""

    home: pathlib.Path
    warnings: list[str] = dataclasses.field(default_factory=list)

    def options(self, state: str, **given: t.Any) -> dict[str, t.Any]:
        mine = {"allowed_signers": str(self.home / "signers"), "state_dir": str(self.home / "state")}
        return {
            **DEFAULTS,
            **mine,
            "state": state,
            **{name: str(value) if isinstance(value, pathlib.Path) else value for name, value in given.items()},
        }

    def release(self, version: str, counter: int, *, signed: bool = True, **given: t.Any) -> dict[str, t.Any]:
        source = self.home / f"source-{version}"
        (source / "config").mkdir(parents=True, exist_ok=True)
        (source / "config/a.conf").write_text(f"version {version}\n")
        image = source / "firmware/wired/gnss_module/firmware.bin"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(make_image(version=version))
        (source / "bundle.yml").write_text(PLAN.format(version=version, counter=counter))
        (source / "deploy.sh").write_text("exit 1\n")
        key = {"signing_key": self.home / "key"} if signed else {}
        given = {"src": source, "path": self.home / "bundles", "deploy_script": source / "deploy.sh", **key, **given}
        return states.built(self.options("built", **given), **self.how(given))

    def how(self, given: dict[str, t.Any]) -> dict[str, t.Any]:
        check, diff = given.pop("check", False), given.pop("diff", False)
        return {"check": check, "diff": diff, "progress": lambda *_said: None, "warn": self.warnings.append}

    def verified(self, path: pathlib.Path, **given: t.Any) -> dict[str, t.Any]:
        how = self.how(given)
        return states.verified(self.options("verified", path=path, **given), **how)

    def extracted(self, path: pathlib.Path, dest: pathlib.Path | str, **given: t.Any) -> dict[str, t.Any]:
        how = self.how(given)
        return states.extracted(self.options("extracted", path=path, dest=dest, **given), **how)

    def bundle(self, version: str) -> pathlib.Path:
        return self.home / "bundles" / bundle_name(version)


@pytest.fixture
def desk(tmp_path: pathlib.Path) -> Desk:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "x", "-f", tmp_path / "key"], check=True)
    (tmp_path / "signers").write_text(f"a@x {(tmp_path / 'key.pub').read_text()}")
    return Desk(tmp_path)


def refusal(call: t.Callable[..., object], *arguments: object, **given: object) -> FleetError:
    with pytest.raises(FleetError) as caught:
        call(*arguments, **given)
    assert str(caught.value).isprintable()
    return caught.value


# built


def test_second_build_changes_nothing_and_a_check_writes_nothing(desk: Desk) -> None:
    assert desk.release("1.0.0", 1, check=True)["changed"]
    assert not (desk.home / "bundles").exists()
    first = desk.release("1.0.0", 1)
    assert (first["changed"], first["signed"], first["manifest"]["version"]) == (True, True, "1.0.0")
    assert first["summary"][1].startswith("Signed with ")
    again = desk.release("1.0.0", 1)
    assert (again["changed"], again["sha256"]) == (False, first["sha256"])
    assert not desk.release("1.0.0", 1, check=True)["changed"]


def test_what_changed_is_told_against_the_last_bundle_beside_it(desk: Desk) -> None:
    assert desk.release("1.0.0", 1)["last_version"] is None
    found = desk.release("1.1.0", 2, diff=True)
    assert found["last_version"] == "1.0.0"
    assert found["changed_files"] == {
        "added": (),
        "changed": ("config/a.conf", "firmware/wired/gnss_module/firmware.bin"),
        "removed": (),
    }
    assert 0 < found["bytes_needed"] < found["size"]
    assert "~ config/a.conf" in "\n".join(found["summary"])
    assert "config/a.conf" in found["diff"]["before"]


def test_counter_that_no_rv_would_take_is_said(desk: Desk) -> None:
    desk.release("1.0.0", 4)
    desk.release("1.1.0", 4)
    assert desk.warnings == [
        "release 1.1.0 has counter 4, and 1.0.0 before it has 4: an RV takes no lower counter unless it is told to;"
        " raise `counter` in bundle.yml"
    ]


def test_bundle_without_a_key_says_that_it_is_not_signed(desk: Desk) -> None:
    found = desk.release("1.0.0", 1, signed=False)
    assert not found["signed"]
    assert found["summary"][1].startswith("Not signed")


# policy


def test_bundle_without_a_signature_is_refused_unless_it_is_asked_for(desk: Desk) -> None:
    desk.release("1.0.0", 1, signed=False)
    path = desk.bundle("1.0.0")
    assert refusal(desk.verified, path).code == "bundle_unsigned"
    assert refusal(desk.extracted, path, desk.home / "out").code == "bundle_unsigned"
    assert not (desk.home / "out").exists()
    found = desk.verified(path, signature_policy="if_present")
    assert (found["signed"], found["principal"]) == (False, None)


def test_file_of_signers_that_is_not_there_trusts_nobody(desk: Desk) -> None:
    desk.release("1.0.0", 1)
    (desk.home / "signers").unlink()
    assert refusal(desk.verified, desk.bundle("1.0.0")).code == "signers_missing"
    assert desk.verified(desk.bundle("1.0.0"), signature_policy="if_present")["principal"] is None
    (desk.home / "signers").symlink_to(desk.home / "elsewhere")  # a medium that is not mounted
    assert refusal(desk.verified, desk.bundle("1.0.0"), signature_policy="if_present").code == "invalid_signers"


def test_bundle_that_was_verified_is_recorded_and_in_a_check_it_is_not(desk: Desk) -> None:
    desk.release("1.0.0", 1)
    desk.verified(desk.bundle("1.0.0"), check=True)
    assert not (desk.home / "state").exists()
    found = desk.verified(desk.bundle("1.0.0"))
    record = json.loads((desk.home / "state/trust.json").read_text())
    assert list(record["verified"]) == [found["manifest_sha256"]]
    assert record["verified"][found["manifest_sha256"]]["principal"] == "a@x"


def test_record_that_cannot_be_written_fails_no_good_bundle(desk: Desk) -> None:
    desk.release("1.0.0", 1)
    (desk.home / "state").write_text("no folder")
    assert desk.verified(desk.bundle("1.0.0"))["principal"] == "a@x"
    assert "could not be recorded" in desk.warnings[0]


# going back


def test_older_release_is_refused_before_a_byte_is_written(desk: Desk) -> None:
    desk.release("1.0.0", 1)
    desk.release("1.1.0", 2)
    new, old = desk.bundle("1.1.0"), desk.bundle("1.0.0")
    assert refusal(desk.verified, old, deployed=new).code == "downgrade"
    assert refusal(desk.extracted, old, desk.home / "out", deployed=new).code == "downgrade"
    assert not (desk.home / "out").exists()
    assert desk.extracted(old, desk.home / "out", deployed=new, allow_downgrade=True)["changed"]
    assert desk.verified(new, deployed=desk.home / "out")["changed_files"]["changed"]


def test_nothing_deployed_yet_is_no_older_release(desk: Desk) -> None:
    desk.release("1.0.0", 1)
    found = desk.verified(desk.bundle("1.0.0"), deployed=desk.home / "nowhere", diff=True)
    assert not {"changed_files", "diff"} & set(found)


def test_record_that_is_just_being_written_is_no_older_release(desk: Desk) -> None:
    desk.release("1.0.0", 1)
    (desk.home / "deployed").mkdir()
    assert "changed_files" not in desk.verified(desk.bundle("1.0.0"), deployed=desk.home / "deployed")
    (desk.home / "deployed/.ansible_tmp1234manifest.json").touch()
    assert "changed_files" not in desk.verified(desk.bundle("1.0.0"), deployed=desk.home / "deployed")


def test_deployed_release_that_cannot_be_read_is_named(desk: Desk) -> None:
    desk.release("1.0.0", 1)
    (desk.home / "other").mkdir()
    (desk.home / "other/README.md").touch()
    error = refusal(desk.verified, desk.bundle("1.0.0"), deployed=desk.home / "other")
    assert error.code == "bundle_missing"
    assert str(desk.home / "other") in str(error)


def test_deployed_bundle_of_the_old_kind_is_nothing_to_compare_with_and_that_is_said(desk: Desk) -> None:
    desk.release("1.0.0", 1)
    desk.verified(desk.bundle("1.0.0"), deployed=legacy_bundle(desk.home))
    assert "is of the old kind" in desk.warnings[0]


# extracted


def test_second_extraction_changes_nothing_and_says_so(desk: Desk) -> None:
    desk.release("1.0.0", 1)
    path, dest = desk.bundle("1.0.0"), desk.home / "releases/1.0.0"
    assert desk.extracted(path, dest, check=True)["changed"]
    assert not dest.parent.exists()
    first = desk.extracted(path, dest, diff=True)
    assert (first["changed"], first["dest"]) == (True, str(dest))
    assert first["sha256"] is not None
    assert "config/a.conf" in first["diff"]["after"]
    again = desk.extracted(path, dest, diff=True)
    assert (again["changed"], again["sha256"], again["manifest_sha256"]) == (False, None, first["manifest_sha256"])
    assert "diff" not in again
    assert not any(again["changed_files"].values())


def test_folder_is_named_by_the_content_and_holds_the_firmware_alone(desk: Desk) -> None:
    desk.release("1.0.0", 1)
    desk.release("1.1.0", 2)
    folders = [
        desk.extracted(desk.bundle(v), f"{desk.home}/fw/{{manifest}}", content="firmware")["dest"]
        for v in ("1.0.0", "1.1.0")
    ]
    assert len({*folders}) == 2
    for folder in map(pathlib.Path, folders):
        assert sorted(path.name for path in folder.iterdir()) == ["firmware", "manifest.json", "manifest.json.sig"]
        assert folder.name in json.loads((desk.home / "state/trust.json").read_text())["verified"].__str__()


def test_bundle_that_is_not_there_is_missing(desk: Desk) -> None:
    for call in (desk.verified, lambda path: desk.extracted(path, "/nowhere/{manifest}")):
        assert refusal(call, desk.home / "none.zip").code == "bundle_missing"


def test_release_that_was_taken_unsigned_gets_its_signature_when_it_has_one(desk: Desk) -> None:
    desk.release("1.0.0", 1, signed=False)
    path, dest = desk.bundle("1.0.0"), desk.home / "out"
    desk.extracted(path, dest, signature_policy="if_present")
    assert not (dest / "manifest.json.sig").exists()
    desk.release("1.0.0", 1)
    assert desk.extracted(path, dest, check=True)["changed"]
    assert not (dest / "manifest.json.sig").exists()
    assert desk.extracted(path, dest)["changed"]
    assert not desk.extracted(path, dest)["changed"]
    assert desk.verified(dest)["principal"] == "a@x"


# the old kind


def legacy_bundle(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "trailcurrent-deployment-0.9.1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("deploy.sh", "exit 0\n")
        archive.writestr("images/backend.tar", bytes(5000))
        archive.writestr("firmware/wired/gnss_module/firmware.bin", make_image(version="0.9.1"))
    return path


def test_bundle_of_the_old_kind_is_shown_where_the_policy_allows_and_says_that_nothing_vouches_for_it(
    desk: Desk,
) -> None:
    path = legacy_bundle(desk.home)
    assert refusal(desk.verified, path).code == "bundle_legacy"
    found = desk.verified(path, signature_policy="if_present")
    assert (found["legacy"], found["signed"], found["version"], found["changed"]) == (True, False, "0.9.1", False)
    assert "nothing vouches for it" in found["summary"][1]
    assert [line for line in found["summary"] if "gnss_module" in line and "0.9.1" in line]


def test_firmware_of_the_old_kind_is_taken_only_where_the_policy_allows(desk: Desk) -> None:
    path, dest = legacy_bundle(desk.home), f"{desk.home}/old/{{manifest}}"
    assert refusal(desk.extracted, path, dest, content="firmware").code == "bundle_legacy"
    words = {"content": "firmware", "signature_policy": "if_present"}
    assert refusal(desk.extracted, path, dest, signature_policy="if_present").code == "bundle_legacy"
    assert desk.extracted(path, dest, check=True, **words)["changed"]
    assert not (desk.home / "old").exists()
    first = desk.extracted(path, dest, **words)
    image = pathlib.Path(first["dest"], "firmware/wired/gnss_module/firmware.bin")
    assert (first["changed"], image.read_bytes()) == (True, make_image(version="0.9.1"))
    assert not desk.extracted(path, dest, **words)["changed"]
    image.write_bytes(b"another")
    assert refusal(desk.extracted, path, dest, **words).code == "destination_differs"


# what the operator sees


def test_progress_is_written_at_changes_and_now_and_then(tmp_path: pathlib.Path) -> None:
    now = [0.0]
    say = states.ProgressFile(tmp_path / "progress.json", lambda: now[0])
    seen = []
    for at, what, done in ((0.0, "hashing", 1), (0.1, "hashing", 2), (0.2, "writing", 3), (0.9, "writing", 4)):
        now[0] = at
        say(what, done, 10)
        seen.append(json.loads((tmp_path / "progress.json").read_text())["done"])
    assert seen == [1, 1, 3, 4]


def test_progress_that_nobody_can_read_stops_nothing(tmp_path: pathlib.Path) -> None:
    states.ProgressFile(None)("hashing", 1, 2)
    states.ProgressFile(tmp_path / "none/progress.json", time.monotonic)("hashing", 1, 2)
    assert list(tmp_path.iterdir()) == []


def test_manifest_is_returned_as_its_file_has_it() -> None:
    made = make()
    shown = states.manifest_json(made.manifest)
    assert json.dumps(shown, indent=1, sort_keys=True) + "\n" == encode_manifest(made.manifest).decode()
    assert {entry["path"] for entry in shown["files"]} == set(FILES)
