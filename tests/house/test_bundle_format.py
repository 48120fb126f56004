"""docs/bundle-format.md: its example is a manifest, and its table of offsets is that example's zip."""

from __future__ import annotations

import pathlib
import re

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
