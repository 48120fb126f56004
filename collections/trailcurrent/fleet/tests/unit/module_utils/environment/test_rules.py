"""What becomes of each variable: kept, given, made, refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.environment import rules
from ansible_collections.trailcurrent.fleet.plugins.module_utils.environment.names import KNOWN, Origin
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import CODES, FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.env_file import (
    assignments,
    change_env,
    parse_env,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.env_quoting import (
    EnvKind,
    unsupported,
    written,
)

PEOPLE = {"MQTT_PASSWORD": "m", "ADMIN_PASSWORD": "a", "NODE_RED_ADMIN_PASSWORD": "n"}
MADE = {"ENCRYPTION_KEY": "0" * 64, "NODE_RED_CREDENTIAL_SECRET": "0" * 128}
SET = {
    "MQTT_BROKER_URL": "mqtts://mosquitto:8883",
    "MQTT_USERNAME": "trailcurrent",
    "TLS_CERT_HOSTNAME": "rv7.local",
    "NODE_RED_ADMIN_USER": "admin",
    "API_PORT": "3000",
    "FRONTEND_PORT": "443",
    "MONGODB_HOST": "mongodb",
    "MONGODB_PORT": "27017",
    "MONGODB_DATABASE": "trailcurrent",
    "NODE_ENV": "production",
}
WHOLE = {**SET, **PEOPLE, **MADE}
OUTSIDE = {"MQTT_BROKER_URL": "mqtts://rv7.local:8883"}


def generate(size: int) -> str:
    return "0" * 2 * size


def file_of(kind: EnvKind, text: str) -> rules.EnvFile:
    return rules.EnvFile(kind, f"the {kind.value} file", {line.name: line for line in assignments(text)})


def files_of(compose: str = "", programs: str = "") -> rules.Files:
    return file_of(EnvKind.COMPOSE, compose), file_of(EnvKind.PROGRAMS, programs)


def text_of(variables: dict[str, str], kind: EnvKind = EnvKind.COMPOSE) -> str:
    return change_env("", {name: written(value, kind) for name, value in variables.items()})


def wanted(**changes: object) -> rules.Wanted:
    options = {"hostname": "rv7", "secrets": {}, "settings": {}, "replace": frozenset(), "old_release": None}
    return rules.Wanted(**{**options, **changes})


def both(variables: dict[str, str], **theirs: str) -> tuple[str, str]:
    return text_of(variables), text_of({**variables, **OUTSIDE, **theirs}, EnvKind.PROGRAMS)


def refused(compose: str, programs: str, **asked: object) -> FleetError:
    with pytest.raises(FleetError) as caught:
        rules.check_wanted(wanted(**asked))
        rules.plan(files_of(compose, programs), wanted(**asked), generate)
    return caught.value


def test_bare_pi_gets_both_files_whole() -> None:
    plan = rules.plan(files_of(), wanted(secrets=PEOPLE), generate)
    assert plan.compose == WHOLE
    assert plan.programs == {**WHOLE, **OUTSIDE}
    assert set(plan.added) == set(WHOLE)
    assert plan.generated == ("ENCRYPTION_KEY", "NODE_RED_CREDENTIAL_SECRET")
    assert not plan.replaced
    assert not plan.warnings


@pytest.mark.parametrize("secrets", [{}, PEOPLE, {**PEOPLE, **MADE}])
def test_second_run_changes_nothing(secrets: dict[str, str]) -> None:
    plan = rules.plan(files_of(*both(WHOLE)), wanted(secrets=secrets), generate)
    assert (plan.compose, plan.programs, plan.generated) == ({}, {}, ())


def test_secret_of_one_file_alone_is_kept_and_goes_into_the_other() -> None:
    for one, other in ((text_of(WHOLE), ""), ("", both(WHOLE)[1])):
        plan = rules.plan(files_of(one, other), wanted(), lambda _: pytest.fail("a secret was made"))
        assert {**parse_env(one), **plan.compose}.items() >= WHOLE.items()
        assert {**parse_env(other), **plan.programs}.items() >= {**WHOLE, **OUTSIDE}.items()


def test_given_secret_that_differs_is_refused_and_not_shown() -> None:
    error = refused(*both(WHOLE), secrets={"MQTT_PASSWORD": "another"})
    assert error.code == "secret_differs"
    assert error.details == {"name": "MQTT_PASSWORD"}
    assert "another" not in str(error)


def test_secret_is_replaced_where_it_is_named() -> None:
    asked = wanted(secrets={"MQTT_PASSWORD": "another"}, replace=frozenset(["MQTT_PASSWORD"]))
    plan = rules.plan(files_of(*both(WHOLE)), asked, generate)
    assert plan.compose == plan.programs == {"MQTT_PASSWORD": "another"}
    assert plan.replaced == ("MQTT_PASSWORD",)


def test_files_that_disagree_on_a_secret_are_refused_whatever_is_given() -> None:
    for given_one in ({}, {"MQTT_PASSWORD": "m"}, {"MQTT_PASSWORD": "other"}):
        error = refused(*both(WHOLE, MQTT_PASSWORD="other"), secrets=given_one)
        assert (error.code, error.details) == ("secrets_disagree", {"name": "MQTT_PASSWORD"})


def test_files_that_disagree_are_settled_by_replace() -> None:
    asked = wanted(secrets={"MQTT_PASSWORD": "other"}, replace=frozenset(["MQTT_PASSWORD"]))
    plan = rules.plan(files_of(*both(WHOLE, MQTT_PASSWORD="other")), asked, generate)
    assert (plan.compose, plan.programs) == ({"MQTT_PASSWORD": "other"}, {})


@pytest.mark.parametrize("name", sorted(PEOPLE))
def test_password_that_nobody_gave_is_named_with_its_variable(name: str) -> None:
    given_ones = {other: value for other, value in PEOPLE.items() if other != name}
    error = refused("", "", secrets=given_ones)
    option = next(known.option for known in KNOWN if known.name == name)
    assert (error.code, error.details) == ("secret_missing", {"names": [name]})
    assert name in str(error)
    assert f"`{option}`" in str(error)


def test_empty_password_of_a_file_counts_as_none() -> None:
    variables = {**WHOLE, "ADMIN_PASSWORD": ""}
    assert refused(*both(variables)).code == "secret_missing"
    plan = rules.plan(files_of(*both(variables)), wanted(secrets=PEOPLE), generate)
    assert plan.compose == plan.programs == {"ADMIN_PASSWORD": "a"}


DOUBTED = [
    ("ADMIN_PASSWORD=pa$word", "ADMIN_PASSWORD=pa$word"),
    ("", "ADMIN_PASSWORD=a # note"),
    ("", "export ADMIN_PASSWORD=a"),
]


@pytest.mark.parametrize(("compose", "programs"), DOUBTED)
def test_secret_that_its_readers_read_differently_is_named_by_its_line(compose: str, programs: str) -> None:
    rest = {name: value for name, value in WHOLE.items() if name != "ADMIN_PASSWORD"}
    error = refused(f"{compose}\n{text_of(rest)}", f"{programs}\n{both(rest)[1]}", secrets=PEOPLE)
    assert (error.code, error.details) == ("secret_unsupported", {"name": "ADMIN_PASSWORD", "line": 1})


def test_line_in_doubt_is_written_anew_where_its_value_is_given_to_replace_it() -> None:
    rest = {name: value for name, value in WHOLE.items() if name != "ADMIN_PASSWORD"}
    asked = wanted(secrets=PEOPLE, replace=frozenset(["ADMIN_PASSWORD"]))
    files = files_of(f"ADMIN_PASSWORD=pa$word\n{text_of(rest)}", f"ADMIN_PASSWORD=pa$word\n{both(rest)[1]}")
    plan = rules.plan(files, asked, generate)
    assert plan.compose == plan.programs == {"ADMIN_PASSWORD": "a"}


def test_lost_key_in_doubt_is_not_made_anew() -> None:
    files = files_of("ENCRYPTION_KEY=$KEY\n", "")
    assert rules.missing_secrets(files, wanted()) == ["NODE_RED_CREDENTIAL_SECRET"]


BAD = [
    ({"secrets": {"A": "a${b"}}, "secret_unsupported"),
    ({"secrets": {"A": "a\nb"}}, "secret_unsupported"),
    ({"settings": {"A": "a\nb"}}, "secret_unsupported"),
    ({"secrets": {"ENCRYPTION_KEY": "short"}}, "secret_unsupported"),
    ({"secrets": {"NO NAME": "a"}}, "invalid_option"),
    ({"settings": {"A=B": "a"}}, "invalid_option"),
    ({"replace": frozenset(["MQTT_PASSWORD"])}, "invalid_option"),
    ({"settings": {"MQTT_PASSWORD": "a"}}, "invalid_option"),
    ({"settings": {"A": "a"}, "secrets": {"A": "a"}}, "invalid_option"),
]


@pytest.mark.parametrize(("asked", "code"), BAD)
def test_wish_that_cannot_work_is_refused_before_the_files_are_looked_at(asked: dict, code: str) -> None:
    with pytest.raises(FleetError) as caught:
        rules.check_wanted(wanted(**asked))
    assert caught.value.code == code
    assert code in CODES
    assert "a${b" not in str(caught.value)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("value", ["pa$word", "back\\slash", " a", "a #b", "'a"])
def test_value_that_needs_quotes_is_refused_while_an_old_release_is_kept(value: str) -> None:
    asked = {"secrets": {**PEOPLE, "ADMIN_PASSWORD": value}}
    error = refused("", "", **asked, old_release="/home/trailcurrent/local_code/cantomqtt")
    assert (error.code, error.details) == ("secret_unsupported", {"name": "ADMIN_PASSWORD"})
    assert f"{value};" not in str(error)
    assert rules.plan(files_of(), wanted(**asked), generate).compose["ADMIN_PASSWORD"] == value


def test_quoted_secret_that_is_there_stays_while_an_old_release_is_kept() -> None:
    variables = {**WHOLE, "ADMIN_PASSWORD": "a #b"}
    plan = rules.plan(files_of(*both(variables)), wanted(old_release="there"), generate)
    assert (plan.compose, plan.programs) == ({}, {})


def test_setting_that_is_given_wins_and_one_that_is_not_is_kept() -> None:
    variables = {**WHOLE, "FRONTEND_PORT": "8000", "API_PORT": "8001"}
    asked = wanted(settings={"FRONTEND_PORT": "9000", "OWN": "x"})
    plan = rules.plan(files_of(*both(variables)), asked, generate)
    assert plan.compose == plan.programs == {"FRONTEND_PORT": "9000", "OWN": "x"}


def test_settings_that_were_made_to_differ_are_left_with_a_warning() -> None:
    files = files_of(*both(WHOLE, MONGODB_HOST="localhost", MQTT_BROKER_URL="mqtts://10.0.0.2:8883"))
    plan = rules.plan(files, wanted(), generate)
    assert (plan.compose, plan.programs) == ({}, {})
    assert [text.partition(" ")[0] for text in plan.warnings] == ["MONGODB_HOST", "MQTT_BROKER_URL"]


def test_new_name_of_the_rv_goes_into_both_files() -> None:
    plan = rules.plan(files_of(*both(WHOLE)), wanted(hostname="rv8"), generate)
    assert plan.compose == {"TLS_CERT_HOSTNAME": "rv8.local"}
    assert plan.programs == {"TLS_CERT_HOSTNAME": "rv8.local", "MQTT_BROKER_URL": "mqtts://rv8.local:8883"}


def test_name_of_the_rv_that_nobody_gives_comes_from_the_files() -> None:
    assert rules.plan(files_of(*both(WHOLE)), wanted(hostname=""), generate).compose == {}
    assert refused("", "", hostname="", secrets=PEOPLE).code == "invalid_option"


def test_names_of_the_owner_are_copied_to_the_programs_where_that_is_safe() -> None:
    compose, programs = both(WHOLE)
    own = "TZ=Europe/Berlin\nDATA=${HOME}/x\nSAID='a b #c'\nEMPTY=\n"
    plan = rules.plan(files_of(compose + own, programs + "CAN_CHANNEL=can1\n"), wanted(), generate)
    assert (plan.compose, plan.programs) == ({}, {"TZ": "Europe/Berlin"})


def test_key_that_cannot_work_is_kept_and_said() -> None:
    plan = rules.plan(files_of(*both({**WHOLE, "ENCRYPTION_KEY": "changeme"})), wanted(), generate)
    assert (plan.compose, plan.programs) == ({}, {})
    assert plan.warnings == (
        "The ENCRYPTION_KEY on the Pi was kept, and cannot work: ENCRYPTION_KEY must be 64 hexadecimal digits.",
    )


SECRETS = sorted(known.name for known in KNOWN if known.origin is not Origin.SETTING)
VALUES = st.text(st.sampled_from("ab$'\"\\# ="), min_size=1, max_size=6).filter(lambda value: not unsupported(value))
STATES = st.dictionaries(st.sampled_from(SECRETS), VALUES)


@given(STATES, STATES, st.dictionaries(st.sampled_from(sorted(PEOPLE)), VALUES), st.sets(st.sampled_from(SECRETS)))
def test_secret_that_is_there_changes_only_where_replace_names_it(
    compose: dict[str, str], programs: dict[str, str], secrets: dict[str, str], replace: set[str]
) -> None:
    asked = wanted(secrets=secrets, replace=frozenset(replace & secrets.keys()))
    texts = text_of(compose), text_of(programs, EnvKind.PROGRAMS)
    try:
        plan = rules.plan(files_of(*texts), asked, generate)
    except FleetError as error:
        assert error.code in {"secret_differs", "secrets_disagree", "secret_missing"}
        return
    after = {**compose, **plan.compose}, {**programs, **plan.programs}
    for name in SECRETS:
        assert after[0][name] == after[1][name]
        for before in (compose, programs):
            assert name in asked.replace or after[0][name] == before.get(name, after[0][name])
    new = [
        change_env(text, {name: written(value, kind) for name, value in changes.items()})
        for text, changes, kind in zip(texts, (plan.compose, plan.programs), EnvKind, strict=True)
    ]
    again = rules.plan(files_of(*new), asked, generate)
    assert (again.compose, again.programs) == ({}, {})
