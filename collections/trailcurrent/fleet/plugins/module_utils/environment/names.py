"""The variables of an RV's environment files (PROTOCOLS.md, Files on the Pi), and where each comes from."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import typing as t

URL: t.Final = "MQTT_BROKER_URL"
CERTIFICATE_NAME: t.Final = "TLS_CERT_HOSTNAME"
ENCRYPTION_KEY: t.Final = "ENCRYPTION_KEY"
DATABASE: t.Final = "MONGODB_DATABASE"
CREDENTIAL_SECRET: t.Final = "NODE_RED_CREDENTIAL_SECRET"

INSIDE_DOCKER: t.Final = "mqtts://mosquitto:"  # the broker's name in Compose's network
_SCHEME: t.Final = "mqtts://"


class Origin(enum.Enum):
    """Who chooses a variable's value."""

    PERSON = "person"
    GENERATED = "generated"
    SETTING = "setting"


@dataclasses.dataclass(frozen=True)
class Known:
    """A variable that every RV has.

    :param option: the role's variable that gives it, for errors
    :param default: of a setting; None where there is none
    :param random_bytes: of a generated secret, written in hex
    """

    name: str
    origin: Origin
    option: str
    default: str | None = None
    random_bytes: int = 0


def _setting(name: str, default: str | None) -> Known:
    return Known(name, Origin.SETTING, "environment_files_settings", default)


def _password(name: str, option: str) -> Known:
    return Known(name, Origin.PERSON, option)


# In the order in which a new file has them.
KNOWN: t.Final[tuple[Known, ...]] = (
    _setting(URL, "mqtts://mosquitto:8883"),
    _setting("MQTT_USERNAME", "trailcurrent"),
    _password("MQTT_PASSWORD", "environment_files_mqtt_password"),
    Known(CERTIFICATE_NAME, Origin.SETTING, "fleet_hostname"),
    Known(ENCRYPTION_KEY, Origin.GENERATED, "environment_files_encryption_key", random_bytes=32),
    _password("ADMIN_PASSWORD", "environment_files_admin_password"),
    _setting("NODE_RED_ADMIN_USER", "admin"),
    _password("NODE_RED_ADMIN_PASSWORD", "environment_files_node_red_password"),
    Known(CREDENTIAL_SECRET, Origin.GENERATED, "environment_files_node_red_credential_secret", random_bytes=64),
    _setting("API_PORT", "3000"),
    _setting("FRONTEND_PORT", "443"),
    _setting("MONGODB_HOST", "mongodb"),
    _setting("MONGODB_PORT", "27017"),
    _setting(DATABASE, "trailcurrent"),
    _setting("NODE_ENV", "production"),
)
BY_NAME: t.Final = {known.name: known for known in KNOWN}


def is_secret(name: str) -> bool:
    """Whether a variable that every RV has is a secret; of others it is not known."""
    return name in BY_NAME and BY_NAME[name].origin is not Origin.SETTING


def for_programs(name: str, value: str, certificate_name: str) -> str:
    """A value of ``~/.env`` as ``~/local_code/.env`` has it: the broker by the name in its certificate."""
    if name != URL or not value.startswith(INSIDE_DOCKER):
        return value
    return f"{_SCHEME}{certificate_name}:{value.removeprefix(INSIDE_DOCKER)}"


def from_programs(name: str, value: str, certificate_names: collections.abc.Collection[str]) -> str:
    """The opposite of ``for_programs``, whichever of the RV's names the value was written with."""
    host, port = value.removeprefix(_SCHEME).rpartition(":")[::2]
    if name != URL or not value.startswith(_SCHEME) or host not in certificate_names:
        return value
    return INSIDE_DOCKER + port
