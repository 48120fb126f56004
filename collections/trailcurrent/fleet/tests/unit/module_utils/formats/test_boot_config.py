"""config.txt: which lines apply to a Pi, and what an edit leaves alone."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.boot_config import (
    LINE_LIMIT,
    parse_line,
    settings,
    with_lines,
    without_lines,
)

PI4, PI5 = "Raspberry Pi 4 Model B Rev 1.5", "Raspberry Pi 5 Model B Rev 1.0"
SPI = "dtparam=spi=on"
CAN = "dtoverlay=mcp2515-can0,oscillator=12000000,interrupt=25,spimaxfrequency=2000000"
LINES = (SPI, CAN)
STOCK = """# For more options and information see http://rptl.io/configtxt
#dtparam=i2c_arm=on
#dtparam=spi=on
dtparam=audio=on
camera_auto_detect=1
dtoverlay=vc4-kms-v3d
[cm4]
otg_mode=1
[cm5]
dtoverlay=dwc2,dr_mode=host
[all]
"""


def test_lines_for_a_stock_file_go_to_its_last_section_and_a_second_edit_changes_nothing() -> None:
    edit = with_lines(STOCK, LINES, PI4)
    assert edit.text == STOCK + SPI + "\n" + CAN + "\n"
    assert (edit.added, edit.kept, edit.contrary) == ([SPI, CAN], [], [])
    again = with_lines(edit.text, LINES, PI4)
    assert (again.text, again.added, again.kept) == (edit.text, [], [SPI, CAN])


@pytest.mark.parametrize(
    ("there", "kept"),
    [
        ("dtoverlay=mcp2515-can0,oscillator=16000000,interrupt=12", "another crystal"),
        ("  dtoverlay = mcp2515-can0 , oscillator=8000000", "blanks"),
        ("device_tree_overlay=mcp2515-can0:oscillator=8000000", "the old names"),
        ("[pi4]\ndtoverlay=mcp2515-can0", "a section of this model"),
        ("[pi5]\n[all]\ndtoverlay=mcp2515-can0", "a section that was lifted"),
        ("[pi5]\n[pi4]\ndtoverlay=mcp2515-can0", "a section that was replaced"),
        ("dtoverlay=mcp2515,spi0-0,oscillator=12000000", "another overlay for it"),
    ],
)
def test_owners_own_overlay_that_would_be_repeated_is_kept(there: str, kept: str) -> None:
    edit = with_lines(there + "\n", [CAN], PI4, ["mcp2515"])
    assert (edit.text, edit.added) == (there + "\n", []), kept
    assert edit.kept == [there.splitlines()[-1].strip()]


@pytest.mark.parametrize(
    "there",
    [
        f"#{CAN}",
        f"[pi5]\n{CAN}",
        f"[pi4]\n[none]\n{CAN}",
        f"[tryboot]\n{CAN}",
        f"[EDID=VSC-TD2220]\n[pi5]\n{CAN}",
        "dtoverlay=mcp2515-can1",
        "dtoverlay=",
        "dtoverlay",
        "",
    ],
)
def test_line_that_does_not_apply_does_not_count(there: str) -> None:
    edit = with_lines(there, [CAN], PI4)
    assert edit.added == [CAN]
    assert edit.text.splitlines()[-2:] == ["[all]", CAN]


@pytest.mark.parametrize("header", ["[EDID=VSC-TD2220]", "[gpio4=1]", "[0x12345678]", "[board-type=0x14]", "[pi9]"])
def test_line_under_a_condition_that_nobody_can_judge_is_named(header: str) -> None:
    with pytest.raises(InputError, match=r"^Line 2 of config\.txt \(`dtoverlay=mcp2515-can0`\)") as error:
        with_lines(f"{header}\ndtoverlay=mcp2515-can0\n", [CAN], PI4)
    assert error.value.code == "boot_config_invalid"
    sure = f"{header}\ndtoverlay=mcp2515-can0\n[all]\n{CAN}\n"
    assert with_lines(sure, [CAN], PI4).text == sure


def test_section_of_a_model_is_judged_by_no_model_only_with_a_doubt() -> None:
    with pytest.raises(InputError):
        with_lines(f"[pi4]\n{CAN}\n", [CAN], "")


@pytest.mark.parametrize(
    ("model", "sections"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0", {"pi0", "pi0w", "pi02"}),
        ("Raspberry Pi Zero W Rev 1.1", {"pi0", "pi0w"}),
        ("Raspberry Pi Model B Plus Rev 1.2", {"pi1"}),
        ("Raspberry Pi 2 Model B Rev 1.1", {"pi2"}),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", {"pi3", "pi3+"}),
        ("Raspberry Pi Compute Module 3 Plus Rev 1.0", {"pi3", "cm3+"}),
        ("Raspberry Pi 4 Model B Rev 1.5\0", {"pi4"}),
        ("Raspberry Pi 400 Rev 1.0", {"pi4", "pi400"}),
        ("Raspberry Pi Compute Module 4 Rev 1.0", {"pi4", "cm4"}),
        ("Raspberry Pi Compute Module 4S Rev 1.0", {"pi4", "cm4s"}),
        (PI5, {"pi5"}),
        ("Raspberry Pi 500 Rev 1.0", {"pi5", "pi500"}),
        ("Raspberry Pi Compute Module 5 Rev 1.0", {"pi5", "cm5"}),
    ],
)
def test_section_of_another_model_is_not_taken_for_ones_own(model: str, sections: set[str]) -> None:
    pis = ["pi0", "pi0w", "pi02", "pi1", "pi2", "pi3", "pi3+", "pi4", "pi400", "pi5", "pi500"]
    names = [*pis, "cm0", "cm1", "cm3", "cm3+", "cm4", "cm4s", "cm5"]
    text = "".join(f"[{name}]\nkey_{name.replace('+', 'plus')}=1\n" for name in names)
    applying = {setting.identity[0] for setting in settings(text, model) if setting.applies}
    assert applying == {f"key_{name.replace('+', 'plus')}" for name in sections}


def test_line_that_switches_it_off_is_kept_and_told() -> None:
    edit = with_lines("dtparam=i2c_arm=on,spi=off\n", [SPI], PI4)
    assert (edit.added, edit.contrary) == ([], ["dtparam=i2c_arm=on,spi=off"])
    assert with_lines("dtparam=spi=off\ndtparam=spi\n", [SPI], PI4).contrary == []


def test_line_ends_and_bytes_of_others_stay_as_they_are() -> None:
    text = "\ufeff# caf\udce9\r\ndtparam=audio=on\r\n[pi5]\r\narm_boost=1"
    edit = with_lines(text, [SPI], PI4)
    assert edit.text == text + "\r\n[all]\r\ndtparam=spi=on\r\n"


@pytest.mark.parametrize(
    ("text", "line", "left"),
    [
        ("a=1\ndtparam=audio=on\nb=2\n", "dtparam=audio=on", "a=1\nb=2\n"),
        ("dtparam=audio=off\n", "dtparam=audio=on", "dtparam=audio=off\n"),
        ("dtparam=audio=off\r\n", "dtparam=audio", ""),
        ("dtparam=i2c_arm=on,audio=on,spi\r\n", "dtparam=audio=yes", "dtparam=i2c_arm=on,spi\r\n"),
        ("dtoverlay=disable-bt,x=1\n", "dtoverlay=disable-bt", ""),
        ("[pi5]\ndtoverlay=disable-bt\n", "dtoverlay=disable-bt", "[pi5]\ndtoverlay=disable-bt\n"),
        ("#dtoverlay=disable-bt\n", "dtoverlay=disable-bt", "#dtoverlay=disable-bt\n"),
    ],
)
def test_only_what_was_named_is_taken_out(text: str, line: str, left: str) -> None:
    edit = without_lines(text, [line], PI4)
    assert edit.text == left
    assert bool(edit.removed) == (text != left)


@pytest.mark.parametrize(
    "line", ["", "# a comment", "[all]", "dtparam=spi=on,i2c_arm=on", "word", "a=1\nb=2", "a=" + "x" * LINE_LIMIT, "=1"]
)
def test_line_that_cannot_be_is_refused(line: str) -> None:
    with pytest.raises(InputError) as error:
        parse_line(line)
    assert error.value.code == "invalid_option"


def test_damaged_file_is_not_mended_by_guessing() -> None:
    with pytest.raises(InputError, match=r"^Line 2 of config\.txt holds zero bytes"):
        with_lines("a=1\n\0\0\0\0", LINES, PI4)


def test_debian_12s_note_of_where_the_file_has_moved_is_no_config() -> None:
    moved = "DO NOT EDIT THIS FILE\n\nThe file you are looking for has moved to /boot/firmware/config.txt\n"
    with pytest.raises(InputError, match="mount /boot/firmware"):
        with_lines(moved, LINES, PI4)


ROWS = st.sampled_from(
    [
        "",
        "# note",
        "[all]",
        "[pi4]",
        "[pi5]",
        "[none]",
        SPI,
        "dtparam=spi=off",
        "dtparam=i2c=on,spi=on",
        CAN,
        "a=1",
        "junk",
    ]
)


@hypothesis.given(rows=st.lists(ROWS), end=st.sampled_from(["\n", "\r\n"]), last=st.booleans())
def test_edit_only_appends_and_is_in_force_afterwards(rows: list[str], end: str, last: bool) -> None:
    text = end.join(rows) + (end if last else "")
    edit = with_lines(text, LINES, PI4)
    assert edit.text.startswith(text)
    for line in LINES:
        identity = parse_line(line)[0]
        assert any(setting.applies for setting in settings(edit.text, PI4) if setting.identity == identity)
    assert with_lines(edit.text, LINES, PI4).text == edit.text


@hypothesis.given(text=st.text(alphabet=st.characters(exclude_characters="\0")), model=st.sampled_from([PI4, PI5, ""]))
def test_no_text_breaks_it(text: str, model: str) -> None:
    try:
        edit = with_lines(text, LINES, model)
    except InputError:
        return
    assert edit.text.startswith(text)
    without_lines(text, ["dtparam=spi"], PI4)


@hypothesis.given(rows=st.lists(ROWS), end=st.sampled_from(["\n", "\r\n"]))
def test_what_is_taken_out_is_gone_and_the_rest_stays_in_its_order(rows: list[str], end: str) -> None:
    text = "".join(row + end for row in rows)
    edit = without_lines(text, ["dtparam=spi", "dtoverlay=mcp2515-can0"], PI4)
    gone = {("dtparam", "spi"), ("dtoverlay", "mcp2515-can0")}
    before, after = settings(text, PI4), settings(edit.text, PI4)
    assert [(s.identity, s.value) for s in after] == [
        (s.identity, s.value) for s in before if not (s.applies and s.identity in gone)
    ]
