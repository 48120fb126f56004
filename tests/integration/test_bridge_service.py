"""The programs of the role can_bridge: packing the code, looking at a Pi, and hearing of the bridge from its broker."""

from __future__ import annotations

import collections.abc
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import time
import typing as t

import pytest

from services.can_bridge.status import STATUS_INTERVAL
from tests.integration.bridge_process import BridgeProcess, eventually
from tests.integration.broker import ADDRESS, Mosquitto, free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ROOT / "roles/can_bridge/files"
BUS = "services/can_bridge/bus.py"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[Mosquitto]:
    running = Mosquitto(tmp_path_factory.mktemp("broker"))
    running.start()
    yield running
    running.stop()


def packed(folder: pathlib.Path) -> dict[str, str]:
    done = subprocess.run([sys.executable, FILES / "pack_code.py", folder], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


@pytest.fixture
def code(tmp_path: pathlib.Path) -> pathlib.Path:
    """The packed code as it lies on a Pi, named by its digest."""
    made = packed(tmp_path / "cache")
    with tarfile.open(made["archive"]) as archive:
        archive.extractall(tmp_path / "code" / made["digest"], filter="data")
    return tmp_path / "code" / made["digest"]


@pytest.fixture
def service() -> dict[str, t.Any]:
    """What is in the program that runs on the Pi."""
    program: dict[str, t.Any] = {"__name__": "service"}
    exec((FILES / "service.py").read_text(), program)
    return program


@pytest.fixture
def settings(tmp_path: pathlib.Path, code: pathlib.Path) -> dict[str, str]:
    """As the role gives them, for a Pi that is set up below ``tmp_path``."""
    link = tmp_path / "fleet"
    link.symlink_to(code)
    names = ("unit", "drop_ins", "env_file", "ca_cert", "note")
    for name in names[:1] + names[2:4]:
        (tmp_path / name).write_text(f"{name}\n")
    files = {name: str(tmp_path / name) for name in names}
    own = {"service": "none.service", "python": sys.executable, "user": "root", "digest": code.name}
    return {**files, **own, "home": str(tmp_path), "code": str(code.parent), "link": str(link)}


def run_packed(code: pathlib.Path, *command: str, **environment: str) -> str:
    """Run Python with that code, and with nothing of this clone."""
    path = {"PYTHONPATH": f"{code}:{code / 'collections'}", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, *command], cwd="/", env=path | environment, check=True, capture_output=True, text=True
    )
    return done.stdout


def ask(code: pathlib.Path, env_file: pathlib.Path) -> dict[str, t.Any]:
    return dict(json.loads(run_packed(code, "-m", "services.can_bridge.ask", BRIDGE_ENV_FILE=str(env_file))))


def test_import_that_is_not_packed_is_found(code: pathlib.Path) -> None:
    modules = [path.stem for path in (ROOT / "services/can_bridge").glob("*.py") if path.stem != "__init__"]
    lines = [f"import services.can_bridge.{name}" for name in modules]
    ours = "(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in ('services', 'ansible_collections'))"
    show = f"print(*filter(None, {ours}))"
    loaded = run_packed(code, "-c", "\n".join(["import sys", *lines, show])).split()
    assert len(loaded) > len(modules)
    assert [path for path in loaded if not path.startswith(str(code))] == []


def test_other_content_under_the_same_name_is_found(
    code: pathlib.Path, service: dict[str, t.Any], tmp_path: pathlib.Path
) -> None:
    """Laptop and Pi count alike, and what Python compiles does not count."""
    assert packed(tmp_path / "other")["digest"] == code.name == service["digest"](code)
    run_packed(code, "-c", "import services.can_bridge.bus")
    assert list(code.rglob("*.pyc"))
    assert service["digest"](code) == code.name
    (code / BUS).write_text("")
    assert service["digest"](code) != code.name


def test_damaged_code_is_not_taken_for_whole(service: dict[str, t.Any], settings: dict[str, str]) -> None:
    assert service["look"](settings)["code_whole"]
    pathlib.Path(settings["link"], BUS).unlink()
    assert not service["look"](settings)["code_whole"]


def test_unit_of_another_set_up_is_told_from_ours(service: dict[str, t.Any], settings: dict[str, str]) -> None:
    unit = pathlib.Path(settings["unit"])
    assert service["look"](settings)["unit"] == "foreign"
    unit.write_text((ROOT / "roles/can_bridge/templates/cantomqtt.service.j2").read_text())
    assert service["look"](settings)["unit"] == "ours"
    unit.unlink()
    assert service["look"](settings)["unit"] == "none"


def link_home(settings: dict[str, str]) -> None:
    home = pathlib.Path(settings["home"])
    settings["home"] = str(home / "home")
    (home / "home").symlink_to(home)


def link_local_code(settings: dict[str, str]) -> None:
    local = pathlib.Path(settings["code"]).parent
    local.with_name("local").symlink_to(local)
    settings["code"] = str(local.with_name("local") / "code")
    settings["link"] = str(local.with_name("local") / "fleet")


def link_code(settings: dict[str, str]) -> None:
    code = pathlib.Path(settings["code"])
    code.rename(code.with_name("elsewhere"))
    code.symlink_to(code.with_name("elsewhere"))


def link_in_code(settings: dict[str, str]) -> None:
    services = pathlib.Path(settings["code"], settings["digest"], "services")
    services.rename(services.with_name("elsewhere"))
    services.symlink_to("/etc")


def give_away(settings: dict[str, str]) -> None:
    os.chown(settings["code"], 1884, 1884)


def lead_away(settings: dict[str, str]) -> None:
    link = pathlib.Path(settings["link"])
    link.unlink()
    link.symlink_to("code/../../etc")


@pytest.mark.parametrize("injure", [link_home, link_local_code, link_code, link_in_code, give_away, lead_away])
def test_path_that_leads_elsewhere_or_is_a_strangers_is_found(
    service: dict[str, t.Any],
    settings: dict[str, str],
    injure: collections.abc.Callable[[dict[str, str]], None],
) -> None:
    """Root makes folders and unpacks there, and gives them to the user."""
    assert service["look"](settings)["unsafe"] == ""
    injure(settings)
    assert service["look"](settings)["unsafe"]


def test_pi_without_a_bridge_has_no_unsafe_path(service: dict[str, t.Any], settings: dict[str, str]) -> None:
    none = {**settings, "home": "/none", "code": "/none/local_code/.fleet", "link": "/none/local_code/fleet"}
    found = service["look"]({**none, "user": "nobody-of-that-name"})
    assert (found["unsafe"], found["user"]) == ("", False)


def change_env(settings: dict[str, str]) -> None:
    pathlib.Path(settings["env_file"]).write_text("MQTT_PASSWORD=another\n")


def renew_ca(settings: dict[str, str]) -> None:
    pathlib.Path(settings["ca_cert"]).write_text("renewed\n")


def add_drop_in(settings: dict[str, str]) -> None:
    pathlib.Path(settings["drop_ins"]).mkdir()
    pathlib.Path(settings["drop_ins"], "own.conf").write_text("[Service]\n")


def switch_code(settings: dict[str, str]) -> None:
    link = pathlib.Path(settings["link"])
    link.unlink()
    link.symlink_to("/nowhere")


@pytest.mark.parametrize("change", [change_env, renew_ca, add_drop_in, switch_code])
def test_service_that_runs_with_what_was_there_before_is_found(
    service: dict[str, t.Any],
    settings: dict[str, str],
    change: collections.abc.Callable[[dict[str, str]], None],
) -> None:
    """Also by a later run: the first one may have been cut off before its restart."""
    assert not service["look"](settings)["applied"]
    service["note"](settings, service["applied"](settings))
    assert service["look"](settings)["applied"]
    assert pathlib.Path(settings["note"]).stat().st_mode & 0o777 == 0o600
    change(settings)
    assert not service["look"](settings)["applied"]


def test_status_of_the_bridge_before_is_not_taken_for_this_one_s(service: dict[str, t.Any]) -> None:
    now = time.time()
    fresh = service["is_fresh"]
    assert fresh({"state": "online", "at": now - 1}, age=5.0)
    assert not fresh({"state": "online", "at": now - 7}, age=5.0)
    assert not fresh({"state": "online", "at": now - 40}, age=4000.0)
    assert not fresh({"state": "offline", "at": now}, age=5.0)
    assert not any(fresh(status, age=5.0) for status in (None, [], {}, {"state": "online", "at": "now"}))
    assert service["STATUS_AGE"] == 3 * STATUS_INTERVAL


def test_ending_service_is_seen_though_systemd_starts_it_again(service: dict[str, t.Any]) -> None:
    assert not service["ended"]({"ActiveState": "active", "NRestarts": "3"}, "3")
    assert service["ended"]({"ActiveState": "active", "NRestarts": "4"}, "3")
    assert service["ended"]({"ActiveState": "activating", "NRestarts": "3"}, "3")
    assert service["ended"]({}, "")


def test_bridge_is_heard_of_by_its_own_settings(broker: Mosquitto, code: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert ask(code, broker.env_file) == {"status": None}
    bridge = BridgeProcess(broker, tmp_path)
    with bridge:
        status = eventually(lambda: ask(code, broker.env_file)["status"])
        assert status["state"] == "online"
    assert eventually(lambda: ask(code, broker.env_file)["status"]["state"] == "offline")


def test_broker_that_is_not_there_or_lets_nobody_in_is_named(
    broker: Mosquitto, code: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    absent, refused, none = (tmp_path / name for name in ("absent.env", "refused.env", "none.env"))
    absent.write_text(f"MQTT_BROKER_URL=mqtt://{ADDRESS}:{free_port()}\n")
    refused.write_text(f"MQTT_BROKER_URL={broker.plain_url}\nMQTT_USERNAME=u\nMQTT_PASSWORD=s3cret-of-the-test\n")
    assert ask(code, absent)["code"] == "broker_refused"
    answer = ask(code, refused)
    assert answer["code"] == "broker_credentials"
    assert "s3cret-of-the-test" not in json.dumps(answer)
    assert ask(code, none)["code"] == "invalid_option"
