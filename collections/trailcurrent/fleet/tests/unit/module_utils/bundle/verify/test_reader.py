"""The beginning of a bundle is judged before the rest is there."""

from __future__ import annotations

from hostile_bundles import FILES, judge, make
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify import content, reader

MADE = make()


def test_head_is_judged_from_the_first_bytes_of_a_download() -> None:
    end = MADE.layout.entries[2].offset
    arrived = MADE.data[: end + reader_margin()]
    promise = reader.judge_head(lambda offset, size: arrived[offset : offset + size], "download", judge)
    assert promise.layout.size == len(MADE.data)
    assert [placed.entry for placed in promise.placed_files] == list(MADE.manifest.files)


def reader_margin() -> int:
    """What a reader of the head looks at behind it: the next entry's header, to see whether a signature follows."""
    return 30 + len("deploy.sh")


def test_downloaded_entry_is_checked_by_itself() -> None:
    promise = reader.judge_head(lambda offset, size: MADE.data[offset : offset + size], "download", judge)
    for placed in promise.placed_files:
        pieces = content.content(lambda offset, size: MADE.data[offset : offset + size], placed, "download")
        assert b"".join(pieces) == FILES[placed.entry.path]


@given(files=st.dictionaries(st.from_regex(r"([a-z]{9,12}/)?[a-z]{1,8}", fullmatch=True), st.binary(max_size=4000)))
def test_any_content_comes_out_as_it_went_in(files: dict[str, bytes]) -> None:
    made = make(files)
    read = lambda offset, size: made.data[offset : offset + size]  # noqa: E731
    promise = reader.judge_head(read, "b", judge)
    reader.check_frame(read, len(made.data), promise.layout, "b")
    seen = {placed.entry.path: b"".join(content.content(read, placed, "b")) for placed in promise.placed_files}
    assert seen == files
