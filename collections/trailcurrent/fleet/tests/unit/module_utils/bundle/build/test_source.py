"""bundle.yml: what it says, what stands for what it does not say, and each mistake by the name of its key."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.images import (
    BuildSpec,
    ImageSpec,
    Substitution,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.source import (
    DEFAULT_DEPLOY,
    FileSpec,
    FirmwareSpec,
    Source,
    parse_source,
    read_source,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError, InputError

BASE = pathlib.Path("/plans")
RELEASED = 1_793_534_400
LEAST = {"version": "1.2.0", "counter": 12, "released": "2026-11-01T12:00:00Z"}
WHOLE = """\
version: 1.2.0
counter: 12
released: 2026-11-01T12:00:00Z
oldest_version: 1.0.0
database_one_way: true
requires: {os: [debian-12], python: ["3.11"], architectures: [x86_64, aarch64]}
images:
  - {service: backend, name: "backend:latest", tar: images/backend.tar}
  - {service: frontend, name: "frontend:latest", engine: podman}
  - service: x
    name: "x:latest"
    build:
      context: ../x
      platform: linux/arm64
      arguments: {A: b}
      substitutions: [{file: public/sw.js, text: "__VERSION__"}]
compose: docker-compose.yml
config: config
local_code: code
firmware: {folder: fw, targets: {gnss_module: esp32c6}, required: [power_control_module]}
wheels: /var/wheels
project: project
deploy: own.sh
files: [{src: LICENSE, dest: LICENSE, mode: "0644"}, {src: a, dest: b/c}]
exclude: ["*.log"]
"""


def plan(environment: dict[str, str] | None = None, **changes: t.Any) -> Source:
    return parse_source({**LEAST, **changes}, BASE, environment or {})


def test_plan_that_is_written_out_whole(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bundle.yml").write_text(WHOLE)
    assert read_source(tmp_path / "bundle.yml", {}, {}) == Source(
        base=tmp_path,
        version="1.2.0",
        counter=12,
        released=RELEASED,
        oldest_version="1.0.0",
        database_one_way=True,
        os=("debian-12",),
        python=("3.11",),
        architectures=("aarch64", "x86_64"),
        images=(
            ImageSpec("backend", "backend:latest", tar="images/backend.tar"),
            ImageSpec("frontend", "frontend:latest", engine="podman"),
            ImageSpec(
                "x",
                "x:latest",
                build=BuildSpec(
                    "../x",
                    platform="linux/arm64",
                    arguments={"A": "b"},
                    substitutions=(Substitution("public/sw.js", "__VERSION__"),),
                ),
            ),
        ),
        firmware=FirmwareSpec("fw", {"gnss_module": "esp32c6"}, ("power_control_module",)),
        compose="docker-compose.yml",
        folders={"config": "config", "local_code": "code", "wheels": "/var/wheels", "project": "project"},
        files=(FileSpec("LICENSE", "LICENSE", 0o644), FileSpec("a", "b/c", None)),
        deploy=tmp_path / "own.sh",
        exclude=("*.pyc", "__pycache__", ".git", "*.log"),
    )


def test_plan_that_says_the_least() -> None:
    least = plan()
    assert (least.released, least.oldest_version, least.database_one_way) == (RELEASED, None, False)
    assert (least.os, least.python) == (("debian-12", "debian-13"), ("3.11", "3.13"))
    assert least.architectures is None
    assert (least.images, least.firmware, least.compose, least.folders, least.files) == ((), None, None, {}, ())
    assert least.deploy == DEFAULT_DEPLOY
    assert least.exclude == ("*.pyc", "__pycache__", ".git")


def test_folder_stands_for_its_bundle_yml(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bundle.yml").write_text(WHOLE)
    assert read_source(tmp_path, {}, {}) == read_source(tmp_path / "bundle.yml", {}, {})


def test_option_of_the_playbook_that_does_not_win(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bundle.yml").write_text(WHOLE)
    changed = read_source(tmp_path, {"version": "2.0.0", "images": [], "counter": None}, {})
    assert (changed.version, changed.images, changed.counter) == ("2.0.0", (), 12)


def test_time_of_release_comes_from_the_environment_only_where_the_plan_has_none() -> None:
    assert plan({"SOURCE_DATE_EPOCH": "1000000000"}, released=None).released == 1_000_000_000
    assert plan({"SOURCE_DATE_EPOCH": "1000000000"}).released == RELEASED


def test_version_that_may_follow_itself() -> None:
    assert plan(oldest_version="1.2.0").oldest_version == "1.2.0"


@pytest.mark.parametrize(
    "epoch", ["", "4070908800", "-1", "1", "now", "99999999999999", "1e9", "1_000_000_000", "١٧٩٣٥٣٤٤٠٠"]
)
def test_time_of_release_that_is_none(epoch: str) -> None:
    with pytest.raises(InputError, match="SOURCE_DATE_EPOCH") as caught:
        plan({"SOURCE_DATE_EPOCH": epoch}, released=None)
    assert caught.value.details == {"key": "released"}


IMAGE = {"service": "backend", "name": "backend:latest"}
BUILD = {"context": "."}
MISTAKES: list[tuple[str, dict[str, t.Any]]] = [
    ("version", {"version": None}),
    ("version", {"version": 1.2}),
    ("version", {"version": "1.2"}),
    ("version", {"version": "v1.2.0"}),
    ("version", {"version": "1.2.0\n"}),
    ("counter", {"counter": None}),
    ("counter", {"counter": 0}),
    ("counter", {"counter": True}),
    ("counter", {"counter": "12"}),
    ("counter", {"counter": 1 << 41}),
    ("released", {"released": "yesterday"}),
    ("released", {"released": "2026-11-01T12:00:00+01:00"}),
    ("released", {"released": "1970-01-01T00:00:00Z"}),
    ("released", {"released": "2026-02-30T00:00:00Z"}),
    ("released", {"released": "2099-01-01T00:00:00Z"}),
    ("oldest_version", {"oldest_version": "1"}),
    ("oldest_version", {"oldest_version": "1.2.1"}),
    ("oldest_version", {"oldest_version": "1.10.0"}),
    ("database_one_way", {"database_one_way": "no"}),
    ("requires", {"requires": ["debian-12"]}),
    ("requires.disk", {"requires": {"disk": 1}}),
    ("requires.os", {"requires": {"os": "debian-12"}}),
    ("requires.python", {"requires": {"python": [3.11]}}),
    ("requires.python", {"requires": {"python": ["2.7"]}}),
    ("requires.architectures", {"requires": {"architectures": ["arm64"]}}),
    ("requires.architectures", {"requires": {"architectures": []}}),
    ("images", {"images": {"backend": "x"}}),
    ("images", {"images": [IMAGE, IMAGE]}),
    ("images[0]", {"images": ["backend"]}),
    ("images[0]", {"images": [None]}),
    ("images[1].service", {"images": [IMAGE, {"name": "x"}]}),
    ("images[0].service", {"images": [{**IMAGE, "service": "../x"}]}),
    ("images[0].name", {"images": [{**IMAGE, "name": ""}]}),
    ("images[0].engine", {"images": [{**IMAGE, "engine": "lxc"}]}),
    ("images[0].tar", {"images": [{**IMAGE, "tar": "x", "build": BUILD}]}),
    ("images[0].tar", {"images": [{**IMAGE, "tar": "x", "engine": "docker"}]}),
    ("images[0].tag", {"images": [{**IMAGE, "tag": "x"}]}),
    ("images[0].build.context", {"images": [{**IMAGE, "build": {}}]}),
    ("images[0].build.platform", {"images": [{**IMAGE, "build": {**BUILD, "platform": "--help"}}]}),
    ("images[0].build.arguments", {"images": [{**IMAGE, "build": {**BUILD, "arguments": {"A": 1}}}]}),
    ("images[0].build.arguments", {"images": [{**IMAGE, "build": {**BUILD, "arguments": ["A=b"]}}]}),
    (
        "images[0].build.substitutions[0].text",
        {"images": [{**IMAGE, "build": {**BUILD, "substitutions": [{"file": "a"}]}}]},
    ),
    ("compose", {"compose": ["a"]}),
    ("config", {"config": 7}),
    ("firmware.folder", {"firmware": {"targets": {}}}),
    ("firmware.targets", {"firmware": {"folder": "x", "targets": {"gnss_module": 6}}}),
    ("firmware.required", {"firmware": {"folder": "x", "required": "gnss_module"}}),
    ("files[0].dest", {"files": [{"src": "a"}]}),
    ("files[0].dest", {"files": [{"src": "a", "dest": "Manifest.json"}]}),
    ("files[0].dest", {"files": [{"src": "a", "dest": "deploy.sh"}]}),
    ("files[0].dest", {"files": [{"src": "a", "dest": "Deploy.SH"}]}),
    ("files[0].mode", {"files": [{"src": "a", "dest": "a", "mode": 644}]}),
    ("files[0].mode", {"files": [{"src": "a", "dest": "a", "mode": "0777"}]}),
    ("exclude", {"exclude": [7]}),
    ("imges", {"imges": []}),
]


@pytest.mark.parametrize(("key", "changes"), MISTAKES)
def test_mistake_in_the_plan_names_its_key(key: str, changes: dict[str, t.Any]) -> None:
    with pytest.raises(InputError) as caught:
        plan(**changes)
    assert caught.value.code == "source_invalid"
    assert caught.value.details == {"key": key}
    assert str(caught.value).startswith(f"`{key}` of bundle.yml cannot be used: ")


@pytest.mark.parametrize("dest", ["/etc/passwd", "../x", "a//b", "a/./b", "-rf", "a.", "ä", "a\\b", "x" * 201])
def test_file_that_would_leave_the_release(dest: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(files=[{"src": "a", "dest": dest}])
    assert caught.value.code == "unsafe_path"


@pytest.mark.parametrize("name", ["nowhere", "x" * 300])
def test_place_where_no_plan_can_be_is_one_sentence(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        read_source(tmp_path / name, {}, {})
    assert caught.value.code == "source_missing"


@pytest.mark.parametrize("text", ["", "- a\n", "word", "7"])
def test_file_that_is_no_plan(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "bundle.yml").write_text(text)
    with pytest.raises(InputError, match="no table of keys and values"):
        read_source(tmp_path, {}, {})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["version", "counter", "released", "requires", "images", "firmware", "files", "exclude", "compose", "deploy"]


@given(content=st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_plan_of_any_shape_that_is_answered_by_a_traceback(content: dict[str, t.Any]) -> None:
    try:
        plan(**content)
    except FleetError as error:
        assert error.code in {"source_invalid", "unsafe_path"}
