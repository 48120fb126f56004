"""docs/bundle-format.md: its examples are a manifest, with the offsets of its zip, and a bundle.yml with every key."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import typing as t

import pytest
import yaml

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build import images, source
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.bundle_zip import Layout, lay_out
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import encode_manifest, parse_manifest

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs/bundle-format.md").read_text()
SIGNATURE = bytes(int(re.findall(r"the signature has (\d+) bytes", PAGE)[0]))


def example() -> bytes:
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    return str(block).encode()


def layout() -> Layout:
    return lay_out(parse_manifest(example(), "the example"), example(), SIGNATURE)


def test_example_that_no_reader_would_take_is_found() -> None:
    assert encode_manifest(parse_manifest(example(), "the example")) == example()


def test_table_of_offsets_that_the_zip_does_not_have_is_found() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| `(\S+)` \|$", PAGE, re.MULTILINE)
    placed = [(str(one.offset), str(one.start), str(one.size), one.name) for one in layout().entries]
    assert rows == placed
    tail = f"| {layout().tail_offset} | | {len(layout().tail)} | central directory and end record; "
    assert f"{tail}the file has {layout().size} bytes |" in PAGE


def test_key_of_a_manifest_that_the_page_does_not_explain_is_found() -> None:
    keys = set(re.findall(rb'^ {1,3}"(\w+)":', example(), re.MULTILINE))
    assert len(keys) > 30
    assert not [key.decode() for key in keys if f"`{key.decode()}`" not in PAGE and f".{key.decode()}`" not in PAGE]


SECTION = PAGE.partition("\n## bundle.yml\n")[2].partition("\n## ")[0]


def plan() -> str:
    (block,) = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    return str(block)


def explained() -> set[str]:
    """The keys that stand in the first column of the section's tables."""
    cells = re.findall(r"^\| (`[^|]+`) \|", SECTION, re.MULTILINE)
    return {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}


def keys(of: type) -> set[str]:
    return {field.name for field in dataclasses.fields(of)}


def test_bundle_yml_that_no_build_would_take_is_found(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bundle.yml").write_text(plan())
    found = source.read_source(tmp_path, {}, {})
    assert (found.version, found.counter, found.architectures) == ("1.2.0", 12, ("aarch64",))
    assert [image.service for image in found.images] == ["backend", "tileserver", "frontend"]
    needed = {key: value for key, value in yaml.safe_load(plan()).items() if key in {"version", "counter"}}
    assert source.parse_source(needed, tmp_path, {"SOURCE_DATE_EPOCH": str(found.released)}).released == found.released


def test_key_of_bundle_yml_that_the_page_does_not_explain_or_show_is_found() -> None:
    shown = yaml.safe_load(plan())
    tables: list[tuple[set[str], t.Any]] = [
        (keys(images.ImageSpec), {key: value for image in shown["images"] for key, value in image.items()}),
        (keys(images.BuildSpec), shown["images"][2]["build"]),
        (keys(images.Substitution), shown["images"][2]["build"]["substitutions"][0]),
        (keys(source.FirmwareSpec), shown["firmware"]),
        (keys(source.FileSpec), shown["files"][0]),
    ]
    with pytest.raises(InputError) as refused:
        source.parse_source({"no_such_key": 1}, pathlib.Path(), {})
    known = set(str(refused.value).partition("there are ")[2].partition(";")[0].split(", "))
    assert known == set(shown)
    assert all(names == set(table) for names, table in tables)
    documented = known.union({"os", "python", "architectures"}, *(names for names, _table in tables))
    assert explained() == documented - {"text"}
    assert "`text` in `file`" in SECTION
    assert set(shown["requires"]) == {"os", "python", "architectures"}


def test_default_of_bundle_yml_that_is_another_one_is_found() -> None:
    def shown(key: str) -> str:
        return str(re.findall(rf"^\| `{key}` \|.*\| ([^|]*) \|$", SECTION, re.MULTILINE)[0])

    assert yaml.safe_load(shown("os").strip("`")) == list(source.DEFAULT_OS)
    assert yaml.safe_load(shown("python").strip("`")) == list(source.DEFAULT_PYTHON)
    assert all(f"`{pattern}`" in SECTION for pattern in source.DEFAULT_EXCLUDE)
    assert shown("file") == f"`{images.BuildSpec('context').file}`"
