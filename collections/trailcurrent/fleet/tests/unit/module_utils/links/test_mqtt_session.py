"""Settings of the broker, and what each failure of a connection tells the operator. Real brokers: tests/integration."""

from __future__ import annotations

import pathlib
import socket
import ssl
import traceback

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError, LinkError, RefusedError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import mqtt_session
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mqtt_session import (
    MqttSettings,
    connection_error,
    mqtt_settings,
    tls_context,
)

ENV = "MQTT_BROKER_URL=mqtts://trailcurrent01.local:8883\nMQTT_USERNAME=rv\nMQTT_PASSWORD='a # b'\n"
SETTINGS = MqttSettings("mqtts://trailcurrent01.local", ca_cert="/ca.pem", timeout=3.0)


def untrusted(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    return error


def test_the_env_file_gives_what_the_options_lack() -> None:
    settings = mqtt_settings({"env_file": "/x/.env", "mqtt_username": "me"}, lambda _path: ENV)
    assert (settings.url, settings.username, settings.password) == ("mqtts://trailcurrent01.local:8883", "me", "a # b")
    assert settings.timeout == 10.0


def test_the_ca_beside_the_env_file_is_the_default(tmp_path: pathlib.Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(ENV)
    assert mqtt_settings({"env_file": str(env_file)}).ca_cert is None
    (tmp_path / "ca.pem").touch()
    assert mqtt_settings({"env_file": str(env_file)}).ca_cert == str(tmp_path / "ca.pem")
    assert mqtt_settings({"env_file": str(env_file), "mqtt_ca_cert": "/other.pem"}).ca_cert == "/other.pem"


def test_a_home_folder_is_understood(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "env").write_text(ENV)
    assert mqtt_settings({"env_file": "~/env"}).username == "rv"


def test_an_absent_env_file_is_no_error_where_the_options_suffice() -> None:
    settings = mqtt_settings({"env_file": "/nowhere/.env", "mqtt_url": "mqtt://127.23.0.9"})
    assert (settings.host, settings.port, settings.tls) == ("127.23.0.9", 1883, False)


def test_no_broker_at_all_names_both_places() -> None:
    with pytest.raises(InputError) as caught:
        mqtt_settings({"env_file": "/nowhere/.env"})
    assert str(caught.value) == (
        "no MQTT broker is known: `mqtt_url` is not set, and there is no MQTT_BROKER_URL in '/nowhere/.env'; "
        "give one of them"
    )


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtt://broker", "broker", 1883, False),
        ("mqtts://broker", "broker", 8883, True),
        ("mqtts://[::1]:18883", "::1", 18883, True),
        ("MQTTS://Broker:1", "broker", 1, True),
    ],
)
def test_a_url_has_its_scheme_s_port(url: str, host: str, port: int, tls: bool) -> None:
    settings = mqtt_settings({"mqtt_url": url})
    assert (settings.host, settings.port, settings.tls) == (host, port, tls)


@pytest.mark.parametrize(
    "url", ["broker", "broker:1883", "http://broker", "mqtts://", "mqtt://b:port", "mqtt://b:0", "mqtt://b:70000"]
)
def test_a_wrong_url_is_refused_before_anything_is_tried(url: str) -> None:
    with pytest.raises(InputError) as caught:
        mqtt_settings({"mqtt_url": url})
    assert caught.value.code == "invalid_option"


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://me:hunter2@broker",
        "mqtts://me:hun/hunter2@broker:8883",  # its netloc is `me:hun`
        "mqtts://me:hunter2@broker:port",
        "mqtts://me:hunter2@broker:70000",
        "mqtts:me:hunter2@broker",  # no netloc at all
        "me:hunter2@broker",
        "http://me:hunter2@broker",
        "mqtts://me:pass?hunter2@broker",
        "mqtts://me:pass#hunter2@broker",
        "mqtts://me:hunter2%40broker",
        "mqtts://[me:hunter2@broker",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InputError) as caught:
        mqtt_settings({"mqtt_url": url})
    assert "hun" not in f"{caught.value}{caught.value.details}"
    assert caught.value.__cause__ is None
    assert "mqtt_password" in str(caught.value)


@pytest.mark.parametrize("url", ["mqtts://broker:hunter2", "mqtts://[broker:hunter2"])
def test_what_stands_where_the_port_should_is_not_repeated(url: str) -> None:
    with pytest.raises(InputError) as caught:
        mqtt_settings({"mqtt_url": url})
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in f"{shown.splitlines()[-1]}{caught.value.details}"
    assert caught.value.__suppress_context__


def test_the_password_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(MqttSettings("mqtt://broker", "me", "hunter2"))


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_that_never_waits_is_refused(timeout: float) -> None:
    with pytest.raises(InputError, match="mqtt_timeout"):
        mqtt_settings({"mqtt_url": "mqtt://broker", "mqtt_timeout": timeout})


def test_an_unreadable_env_file_is_named() -> None:
    def denied(_path: str) -> str:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(InputError, match=r"/x/\.env.*Permission denied") as caught:
        mqtt_settings({"env_file": "/x/.env"}, denied)
    assert caught.value.code == "invalid_env_file"


def test_a_binary_env_file_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "env").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        mqtt_settings({"env_file": str(tmp_path / "env")})


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_ca_that_cannot_be_used_is_named(tmp_path: pathlib.Path, content: bytes | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    with pytest.raises(InputError, match=r"ca\.pem"):
        tls_context(MqttSettings("mqtts://broker", ca_cert=str(ca_file)))


def test_old_tls_is_not_spoken() -> None:
    assert tls_context(MqttSettings("mqtts://broker")).minimum_version == ssl.TLSVersion.TLSv1_2


def test_ca_of_the_old_scripts_is_trusted_whatever_the_python() -> None:
    """It lacks the extensions that Python 3.13 asks for (`openssl req -x509` without a configuration for CAs)."""
    assert not tls_context(MqttSettings("mqtts://broker")).verify_flags & ssl.VERIFY_X509_STRICT


@pytest.mark.parametrize(
    ("error", "kind", "code", "said"),
    [
        (untrusted(9), RefusedError, "broker_untrusted", "not yet valid and this machine's clock says 20"),
        (untrusted(10), RefusedError, "broker_untrusted", "has expired"),
        (untrusted(62), RefusedError, "broker_untrusted", "made for another name than 'trailcurrent01.local'"),
        (untrusted(64), RefusedError, "broker_untrusted", "another name"),
        (untrusted(20), RefusedError, "broker_untrusted", "not signed by the CA in /ca.pem"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), LinkError, "broker_refused", "not TLS"),
        (ConnectionRefusedError(), LinkError, "broker_refused", "nothing listens on port 8883"),
        (ConnectionResetError(), LinkError, "broker_refused", "closed the connection"),
        (socket.gaierror(-2, "x"), LinkError, "broker_unreachable", "the name 'trailcurrent01.local' is not known"),
        (TimeoutError(), LinkError, "broker_unreachable", "no answer within 3 s"),
        (OSError(113, "No route to host"), LinkError, "broker_unreachable", "No route to host"),
    ],
)
def test_each_failure_has_its_code_and_next_step(error: OSError, kind: type, code: str, said: str) -> None:
    meant = connection_error(SETTINGS, error)
    assert isinstance(meant, kind)
    assert meant.code == code
    assert said in str(meant)
    assert "mqtts://trailcurrent01.local" in str(meant)


def test_paho_is_there() -> None:
    assert mqtt_session.PAHO_MISSING is None
