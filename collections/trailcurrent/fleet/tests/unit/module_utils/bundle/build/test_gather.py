"""The files of a bundle: all that belong to it, none from elsewhere, and the same ones each time."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build import gather
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.source import parse_source
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.deflate import BLOCK
from ansible_collections.trailcurrent.fleet.tests.unit.image_archives import small_image, tar
from virtual_rv.image import make_image

LEAST = {"version": "1.2.0", "counter": 1, "released": "2026-11-01T12:00:00Z", "deploy": "deploy.sh"}


@pytest.fixture
def base(tmp_path: pathlib.Path) -> pathlib.Path:
    base = tmp_path / "base"
    (base / "config/sub").mkdir(parents=True)
    (base / "config/b.conf").write_text("b")
    (base / "config/sub/a.conf").write_text("a")
    (base / "deploy.sh").write_text("echo @VERSION@ of @VERSION@\n")
    return base


def found(base: pathlib.Path, **plan: t.Any) -> dict[str, gather.Content]:
    scratch = base.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    gathered = gather.gather(parse_source({**LEAST, **plan}, base, {}), scratch)
    assert [content.path for content in gathered.contents] == sorted(content.path for content in gathered.contents)
    return {content.path: content for content in [*gathered.contents, gathered.deploy]}


def refused(base: pathlib.Path, **plan: t.Any) -> InputError:
    with pytest.raises(InputError) as caught:
        found(base, **plan)
    return caught.value


def test_files_come_from_every_place_that_the_plan_names(base: pathlib.Path) -> None:
    (base / "compose.yaml").write_text("services: {}\n")
    paths = found(base, config="config", compose="compose.yaml", files=[{"src": "config/b.conf", "dest": "doc/b"}])
    assert list(paths) == ["config/b.conf", "config/sub/a.conf", "doc/b", "docker-compose.yml", "deploy.sh"]
    assert b"".join(paths["docker-compose.yml"].blocks()) == b"services: {}\n"


def test_deploy_script_names_its_release(base: pathlib.Path) -> None:
    deploy = found(base)["deploy.sh"]
    assert (deploy.mode, b"".join(deploy.blocks())) == (0o755, b"echo 1.2.0 of 1.2.0\n")


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o600, 0o644), (0o666, 0o644), (0o700, 0o755), (0o4777, 0o755), (0o455, 0o644)]
)
def test_mode_that_hangs_on_the_umask_of_who_checked_it_out(base: pathlib.Path, mode: int, expected: int) -> None:
    (base / "config/b.conf").chmod(mode)
    assert found(base, config="config")["config/b.conf"].mode == expected


def test_mode_in_the_plan_wins(base: pathlib.Path) -> None:
    paths = found(base, files=[{"src": "config/b.conf", "dest": "b", "mode": "0755"}])
    assert paths["b"].mode == 0o755


def test_excluded_names_at_any_depth(base: pathlib.Path) -> None:
    for name in ("config/.git/HEAD", "config/sub/__pycache__/a.pyc", "config/sub/b.pyc", "config/keep.py"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("x")
    assert "config/keep.py" in found(base, config="config")
    assert list(found(base, config="config")) == [
        "config/b.conf",
        "config/keep.py",
        "config/sub/a.conf",
        "deploy.sh",
    ]
    assert list(found(base, config="config", exclude=["sub", ".*", "*.py"])) == ["config/b.conf", "deploy.sh"]


def test_patterns_of_the_plan_that_thin_out_what_is_made_for_the_pi(base: pathlib.Path) -> None:
    for name in ("wheels/a.whl", "wheels/notes.txt", "project/fleet.tar.gz", "project/a.pyc", "local_code/b.txt"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("x")
    folders = {name: name for name in ("wheels", "project", "local_code")}
    paths = found(base, **folders, exclude=["*.gz", "*.txt", "*.whl"])
    assert list(paths) == ["project/fleet.tar.gz", "wheels/a.whl", "wheels/notes.txt", "deploy.sh"]


def test_patterns_of_the_plan_that_let_git_in(base: pathlib.Path) -> None:
    (base / "config/.git").mkdir()
    (base / "config/.git/HEAD").write_text("x")
    assert list(found(base, config="config", exclude=["*.orig"])) == ["config/b.conf", "config/sub/a.conf", "deploy.sh"]


def test_links_inside_the_source_are_followed(base: pathlib.Path) -> None:
    (base / "shared").mkdir()
    (base / "shared/c.conf").write_text("c")
    (base / "config/file").symlink_to("sub/a.conf")
    (base / "config/folder").symlink_to("../shared")
    paths = found(base, config="config")
    assert b"".join(paths["config/file"].blocks()) == b"a"
    assert b"".join(paths["config/folder/c.conf"].blocks()) == b"c"


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/etc/passwd", "link out of the source"),
        ("/etc", "link out of the source"),
        ("../../outside", "link out of the source"),
        ("nowhere", "link to nothing"),
        ("loop", "link to nothing"),
        (".", "a folder that it lies in"),
        ("..", "a folder that it lies in"),
    ],
)
def test_link_out_of_the_source(base: pathlib.Path, target: str, seen: str) -> None:
    (base.parent / "outside").write_text("secret")
    (base / "config/loop").symlink_to(target)
    error = refused(base, config="config") if target != ".." else refused(base, config=".")
    assert error.code == "unsafe_path"
    assert seen in str(error)
    assert "config/loop" in str(error)


def test_special_file_is_refused_and_not_waited_for(base: pathlib.Path) -> None:
    os.mkfifo(base / "config/pipe")
    assert refused(base, config="config").code == "unsafe_path"
    assert refused(base, files=[{"src": "config/pipe", "dest": "x"}]).code == "source_missing"


@pytest.mark.parametrize("name", ["é", "a\nb", "b:c", "end.", "-x", "\udcff"])
def test_name_that_another_system_would_change(base: pathlib.Path, name: str) -> None:
    (base / "config" / name).write_text("x")
    assert refused(base, config="config").code == "unsafe_path"


def test_names_that_differ_only_by_case(base: pathlib.Path) -> None:
    (base / "config/B.conf").write_text("x")
    assert refused(base, config="config").code == "unsafe_path"


def test_file_that_is_there_twice(base: pathlib.Path) -> None:
    files = [{"src": "config/b.conf", "dest": "config/b.conf"}]
    assert refused(base, config="config", files=files).code == "unsafe_path"


@pytest.mark.parametrize(
    "plan",
    [
        {"config": "nowhere"},
        {"config": "config/b.conf"},
        {"compose": "nowhere"},
        {"compose": "config"},
        {"deploy": "nowhere"},
        {"files": [{"src": "nowhere", "dest": "x"}]},
    ],
)
def test_file_that_is_not_there_is_named(base: pathlib.Path, plan: dict[str, t.Any]) -> None:
    error = refused(base, **plan)
    assert error.code == "source_missing"
    assert str(base) in str(error)


NO_ROOT = """
import os, pathlib, sys
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build import gather
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build import source
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
base = pathlib.Path(sys.argv[1])
plan = source.read_source(base, {})
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    gather.gather(plan, base)
except FleetError as error:
    print(error.code, error)
"""


IMAGES = {"images": [{"service": "a", "name": "a", "tar": "folder/image.tar"}]}


@pytest.mark.parametrize(
    ("shut", "mode", "key"),
    [
        ("deploy.sh", 0, {}),
        ("folder/image.tar", 0, IMAGES),
        ("folder", 0, IMAGES),
        ("folder", 0, {"files": [{"src": "folder/image.tar", "dest": "file"}]}),
        ("folder", 0, {"compose": "folder/image.tar"}),
        ("folder", 0, {"config": "folder"}),
        ("folder", 0, {"config": "folder/sub"}),
        ("folder", 0o444, {"config": "folder"}),  # its names can be read, and no more
    ],
)
def test_file_that_this_user_may_not_read_is_one_sentence(shut: str, mode: int, key: dict[str, t.Any]) -> None:
    with tempfile.TemporaryDirectory() as name:  # not in pytest's folders, where another user may not even look
        base = pathlib.Path(name)
        base.chmod(0o755)
        (base / "folder/sub").mkdir(parents=True)
        (base / "folder/image.tar").write_text("x")
        (base / "deploy.sh").write_text("x")
        (base / "bundle.yml").write_text(json.dumps({**LEAST, **key}))
        (base / shut).chmod(mode)
        done = subprocess.run(
            [sys.executable, "-c", NO_ROOT, str(base)],
            env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[7])},
            capture_output=True,
            text=True,
            check=False,
        )
        (base / shut).chmod(0o755)
    assert done.stderr == ""
    assert done.stdout.startswith("source_missing ")
    assert "Permission denied" in done.stdout


def processors(base: pathlib.Path, requires: list[str] | None, **services: str) -> tuple[str, ...]:
    """The machines of a release with these services, each with the architecture of its image."""
    for service, architecture in services.items():
        (base / f"{service}.tar").write_bytes(tar(small_image(architecture=architecture).docker_files()))
    specs = [{"service": service, "name": service, "tar": f"{service}.tar"} for service in services]
    plan = parse_source({**LEAST, "images": specs, "requires": {"architectures": requires}}, base, {})
    return gather.gather(plan, base).architectures


@pytest.mark.parametrize(
    ("requires", "services", "expected"),
    [
        (None, {}, ("aarch64", "x86_64")),
        (["x86_64"], {}, ("x86_64",)),
        (None, {"backend": "amd64", "frontend": "amd64"}, ("x86_64",)),
        (None, {"backend": "arm64"}, ("aarch64",)),
        (["aarch64"], {"backend": "arm64"}, ("aarch64",)),
    ],
)
def test_machines_that_cannot_run_what_the_bundle_says_they_can(
    base: pathlib.Path, requires: list[str] | None, services: dict[str, str], expected: tuple[str, ...]
) -> None:
    assert processors(base, requires, **services) == expected


@pytest.mark.parametrize(
    ("requires", "services", "named"),
    [
        (None, {"backend": "amd64", "frontend": "arm64"}, ["backend is for amd64, frontend is for arm64"]),
        (["aarch64", "x86_64"], {"backend": "amd64"}, ["backend", "for amd64", "says aarch64 and x86_64", "linux/arm"]),
        (["aarch64"], {"frontend": "arm64", "backend": "amd64"}, ["backend", "for amd64", "says aarch64"]),
        (None, {"backend": "s390x"}, ["backend", "for s390x", "Pis are aarch64 and x86_64"]),
    ],
)
def test_bundle_that_no_machine_can_run(
    base: pathlib.Path, requires: list[str] | None, services: dict[str, str], named: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        processors(base, requires, **services)
    assert caught.value.code == "image_architecture"
    assert all(part in str(caught.value) for part in named)


def test_firmware_lies_where_a_rollout_looks(base: pathlib.Path) -> None:
    (base / "fw/gnss_module").mkdir(parents=True)
    (base / "fw/gnss_module/firmware.bin").write_bytes(make_image(chip="esp32c6"))
    paths = found(base, firmware={"folder": "fw", "targets": {"gnss_module": "esp32c6"}})
    assert list(paths) == ["firmware/wired/gnss_module/firmware.bin", "deploy.sh"]


@pytest.mark.parametrize("change", [b"", b"longer than before"])
def test_file_that_changes_while_it_is_read(base: pathlib.Path, change: bytes) -> None:
    content = found(base, config="config")["config/b.conf"]
    content.file.write_bytes(change)
    with pytest.raises(InputError, match="was changed while the bundle was built"):
        list(content.blocks())


def test_file_that_goes_while_it_is_read(base: pathlib.Path) -> None:
    content = found(base, config="config")["config/b.conf"]
    content.file.unlink()
    with pytest.raises(InputError) as caught:
        list(content.blocks())
    assert caught.value.code == "source_missing"


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1])
def test_window_into_a_file_that_gives_other_bytes(tmp_path: pathlib.Path, size: int) -> None:
    (tmp_path / "image.tar").write_bytes(b"head" + b"x" * size + b"tail")
    window = gather.Content("images/x.tar", 0o644, size, tmp_path / "image.tar", 4)
    assert b"".join(window.blocks()) == b"x" * size
    assert all(len(block) <= BLOCK for block in window.blocks())
    with pytest.raises(InputError, match="was changed"):
        list(gather.Content("images/x.tar", 0o644, size + 5, tmp_path / "image.tar", 4).blocks())
