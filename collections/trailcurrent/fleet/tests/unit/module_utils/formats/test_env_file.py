"""Environment files as people, systemd and python-dotenv write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.env_file import (
    assignments,
    change_env,
    parse_env,
)

READ = [
    ("", {}),
    ("\n\n  \n\t\n", {}),
    ("# a comment\n; another\n   # indented\n", {}),
    ("A=1", {"A": "1"}),
    ("A=1\nB=2\n", {"A": "1", "B": "2"}),
    ("A=1\r\nB='2'\r\n", {"A": "1", "B": "2"}),
    ("\ufeffA=1", {"A": "1"}),
    ("A=", {"A": ""}),
    ("A=\nB=2", {"A": "", "B": "2"}),
    ("A=''\nB=\"\"", {"A": "", "B": ""}),
    ("export A=1\nexport\tB=2", {"A": "1", "B": "2"}),
    ("export=1", {"export": "1"}),
    ("  A  =  1  ", {"A": "1"}),
    ("a_b.c-D9=1", {"a_b.c-D9": "1"}),
    ("A=one two", {"A": "one two"}),
    ("A=b=c==", {"A": "b=c=="}),
    ("A=1\nA=2", {"A": "2"}),
    ("A=value # comment", {"A": "value"}),
    ("A=value\t# comment", {"A": "value"}),
    ("A=# all comment", {"A": ""}),
    ("A=pass#word", {"A": "pass#word"}),
    ("A='value # text' # comment", {"A": "value # text"}),
    ('A="value # text"# comment', {"A": "value # text"}),
    ('A="1" # comment\nB=2\n', {"A": "1", "B": "2"}),
    ("A='1' # comment\nB=2\n", {"A": "1", "B": "2"}),
    ("A=${HOME} $HOME `id` $(id)", {"A": "${HOME} $HOME `id` $(id)"}),
    ("A='${HOME}'", {"A": "${HOME}"}),
    ('A="${HOME}"', {"A": "${HOME}"}),
    (r"A=back\slash\n", {"A": r"back\slash\n"}),
    (r"A='back\slash\n\\'", {"A": r"back\slash\n\\"}),
    (r'A="say \"hi\" \\ \$ \` \d"', {"A": r'say "hi" \ $ ` \d'}),
    (r'A="a\nb\tc\rd"', {"A": "a\nb\tc\rd"}),
    (r'A="\\n"', {"A": r"\n"}),
    ('A="joined \\\nlines"', {"A": "joined lines"}),
    ("A='two\nlines'\nB=1", {"A": "two\nlines", "B": "1"}),
    ('A="two\nlines # text"\nB=1', {"A": "two\nlines # text", "B": "1"}),
    ("A=it's", {"A": "it's"}),
    ('A="it\'s"', {"A": "it's"}),
    ("A='say \"hi\"'", {"A": 'say "hi"'}),
    ("A=ü你🚐", {"A": "ü你🚐"}),
    (
        "MQTT_BROKER_URL=mqtts://trailcurrent01.local:8883\nMQTT_USERNAME=trailcurrent\nMQTT_PASSWORD='p w#1$'\n",
        {
            "MQTT_BROKER_URL": "mqtts://trailcurrent01.local:8883",
            "MQTT_USERNAME": "trailcurrent",
            "MQTT_PASSWORD": "p w#1$",
        },
    ),
]


@pytest.mark.parametrize(("text", "variables"), READ)
def test_file_is_read_as_its_other_readers_read_it(text: str, variables: dict[str, str]) -> None:
    assert parse_env(text) == variables


BROKEN = [
    ("secret", 1, "it is no assignment such as NAME=value"),
    ("A=1\n\n# c\nsecret", 4, "it is no assignment such as NAME=value"),
    ("A='1\n2'\nsecret", 3, "it is no assignment such as NAME=value"),
    ("=secret", 1, "it is no assignment such as NAME=value"),
    ("9A=secret", 1, "it is no assignment such as NAME=value"),
    ("ü=secret", 1, "it is no assignment such as NAME=value"),
    ("A B=secret", 1, "it is no assignment such as NAME=value"),
    ("export secret", 1, "it is no assignment such as NAME=value"),
    ("A=1\nB='secret", 2, "its value begins with ' and has no such quote at its end"),
    ("A=1\nB='secret\nC=2\n", 2, "its value begins with ' and has no such quote at its end"),
    ('B="secret', 1, 'its value begins with " and has no such quote at its end'),
    ('B="secret\\"', 1, 'its value begins with " and has no such quote at its end'),
    ('B="secret\\', 1, 'its value begins with " and has no such quote at its end'),
    ("B='secret'more", 1, "its value begins with ' and has no such quote at its end"),
    ("B='sec'ret'", 1, "its value begins with ' and has no such quote at its end"),
    ("B=sec\0ret", 1, "its value holds a zero byte"),
]


@pytest.mark.parametrize(("text", "line", "seen"), BROKEN)
def test_broken_line_is_named_by_its_number_and_never_shown(text: str, line: int, seen: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_env(text, "file ~/.env")
    assert caught.value.code == "invalid_env_file"
    assert str(caught.value) == f"Line {line} of the file ~/.env cannot be read: {seen}; repair that line."
    assert caught.value.details == {"line": line}
    assert "secret" not in str(caught.value)


NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=30)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_any_value_between_double_quotes_survives(variables: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return "".join("\\" + character if character in '"\\$`' else character for character in value)

    assert parse_env("".join(f'{name}="{quoted(value)}"\n' for name, value in variables.items())) == variables


@given(st.dictionaries(NAMES, VALUES.filter(lambda value: "'" not in value), max_size=5))
def test_any_value_without_a_single_quote_survives_between_them(variables: dict[str, str]) -> None:
    assert parse_env("\n".join(f"{name}='{value}'" for name, value in variables.items())) == variables


@given(st.one_of(st.text(), st.text(alphabet="A=' \"\\\n\r#;x\0", max_size=60)))
def test_any_text_raises_nothing_but_an_input_error(text: str) -> None:
    try:
        variables = parse_env(text)
    except InputError as error:
        assert 1 <= error.details["line"] <= text.count("\n") + 1
    else:
        assert all(isinstance(value, str) for value in variables.values())


def test_ten_megabytes_of_one_value_are_read_and_not_hung_on() -> None:
    assert len(parse_env('A="' + "\\n" * 5_000_000 + '"')["A"]) == 5_000_000


CHANGED = [
    ("", {"A": "1"}, "A=1\n"),
    ("A=0\n", {"A": "1"}, "A=1\n"),
    ("A=0", {"A": "1"}, "A=1\n"),
    ("A=0", {"B": "1"}, "A=0\nB=1\n"),
    ("# c\n\nA=0 # old\nB=2\n", {"A": "1"}, "# c\n\nA=1\nB=2\n"),
    ("A=0\nB=2\nA=1\n", {"A": "3"}, "B=2\nA=3\n"),
    ("A='two\nlines' # c\nB=2", {"A": "1"}, "A=1\nB=2\n"),
    ("\ufeffA=0\r\n# c\r\nB=2\r\n", {"B": "1"}, "A=0\n# c\nB=1\n"),
    ("export A=0\n  B = 2\n", {"A": "1"}, "A=1\n  B = 2\n"),
    ("A=0\n; c", {"B": "1", "C": "2"}, "A=0\n; c\nB=1\nC=2\n"),
]


@pytest.mark.parametrize(("text", "changes", "after"), CHANGED)
def test_change_that_loses_what_was_not_named_is_found(text: str, changes: dict[str, str], after: str) -> None:
    assert change_env(text, changes) == after


LINES = st.lists(st.sampled_from(["A=1", "B='x y' # c", "# note", "", '  C = "q"', "export D=4", "A=2"]), max_size=8)


@given(LINES, st.dictionaries(st.sampled_from("ABCDE"), st.sampled_from(["1", "'x y'"]), max_size=3))
def test_change_keeps_every_line_of_another_name_in_order(lines: list[str], changes: dict[str, str]) -> None:
    before = "".join(f"{line}\n" for line in lines)
    after = change_env(before, changes)
    named = {line.line for line in assignments(before) if line.name in changes}
    kept = [line for number, line in enumerate(lines, 1) if number not in named]
    assert [line for line in after.splitlines() if line in kept and parse_env(line).keys().isdisjoint(changes)] == kept
    assert parse_env(after) == parse_env(before) | parse_env("".join(f"{k}={v}\n" for k, v in changes.items()))


def test_assignment_that_shows_its_secret_when_printed_is_found() -> None:
    (line,) = assignments("A='secret'\n")
    assert "secret" not in repr(line)
