"""Whose credentials, and for which modules: what the options say, and for the rest the RV's database."""

from __future__ import annotations

import collections.abc
import typing as t

from ..errors import InputError, RefusedError
from ..formats.hostname import ModuleName, parse_hostname
from ..formats.registry import Invalid, read_modules
from ..formats.wifi_credentials import WifiCredentials
from ..links.mcu_registry import MODULES, open_registry
from ..links.mqtt_session import expanded, read_env
from ..links.secrets import KEY_NAME, decrypt

SSID: t.Final = "wifi_ssid"  # PROTOCOLS.md, MongoDB on the Pi
CIPHERTEXT: t.Final = "wifi_password_encrypted"
IV: t.Final = "wifi_password_iv"

Options = collections.abc.Mapping[str, t.Any]
Settings = collections.abc.Mapping[str, t.Any]


class Wanted(t.NamedTuple):
    """What the modules shall know, and which modules.

    :param source: ``options`` or ``database``, where the credentials are from
    :param invalid: entries of the registry that name no module
    """

    credentials: WifiCredentials
    names: tuple[ModuleName, ...]
    source: str
    invalid: tuple[Invalid, ...]


def read_wanted(options: Options) -> Wanted:
    """The credentials and the modules; the database is asked for what the options leave open, once.

    :raises InputError: ``wifi_invalid``, ``invalid_option``, ``invalid_hostname``, ``decryption_failed``
    :raises RefusedError: ``wifi_absent``, ``decryption_failed``
    :raises FleetError: what ``mcu_registry`` raises
    """
    given = given_credentials(options)
    names = tuple(parse_hostname(hostname) for hostname in options.get("hostnames") or ())
    keys = [*([] if given else [SSID, CIPHERTEXT, IV]), *([] if options.get("hostnames") is not None else [MODULES])]
    settings = _read_settings(options, keys)
    credentials = given or stored_credentials(settings, lambda: _key(options))
    invalid: list[Invalid] = []
    if MODULES in keys:
        modules, invalid = read_modules(settings.get(MODULES, []), include_disabled=True)
        names = tuple(parse_hostname(module.hostname) for module in modules)
    return Wanted(credentials, names, "options" if given else "database", tuple(invalid))


def given_credentials(options: Options) -> WifiCredentials | None:
    """The credentials of the options; None where they give none."""
    ssid, password = options.get("ssid"), options.get("password")
    if ssid is None and password is None:
        return None
    if ssid is None or password is None:
        missing, other = ("ssid", "password") if ssid is None else ("password", "ssid")
        raise InputError(
            "invalid_option",
            f"`{other}` is given without `{missing}`; give both (an empty password is an open network), or neither: "
            "then those of the RV's database are used",
        )
    return WifiCredentials(ssid, password)


def stored_credentials(settings: Settings, key: collections.abc.Callable[[], str]) -> WifiCredentials:
    """The credentials that the web app has stored.

    A cleared password is not set (PROTOCOLS.md): it is never sent as that of an open network.

    :param key: reads ENCRYPTION_KEY; called only where there is something to decrypt
    :raises RefusedError: ``wifi_absent``, ``decryption_failed``
    """
    if not settings.get(SSID):
        raise _absent("the RV's database has no Wi-Fi name")
    if not settings.get(CIPHERTEXT):
        raise _absent("the RV's database has a Wi-Fi name and no password for it")
    return WifiCredentials(settings[SSID], decrypt(settings[CIPHERTEXT], settings.get(IV, ""), key()))


def _read_settings(options: Options, keys: list[str]) -> Settings:
    if not keys:
        return {}
    with open_registry(options) as registry:
        return registry.settings(keys)


def _key(options: Options) -> str:
    env_file = expanded(options.get("env_file"))
    key = read_env(env_file).get(KEY_NAME)
    if not key:
        raise InputError(
            "decryption_failed",
            f"The Wi-Fi password of the RV's database cannot be decrypted: there is no {KEY_NAME} in {env_file!r}; "
            "restore it from a backup, or give `ssid` and `password`",
        )
    return key


def _absent(seen: str) -> RefusedError:
    return RefusedError(
        "wifi_absent",
        f"There are no Wi-Fi credentials to send: none are given, and {seen}; "
        "set them in the web app, or give `ssid` and `password` (an empty one is an open network)",
    )
