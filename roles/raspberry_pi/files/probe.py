"""What a host has of what the role wants: runs on the Pi, takes one JSON object and prints another.

Standard library and Debian's own tools only. It changes nothing. The role decides by what it prints which steps are
left, so that a Pi that is set up is looked at once and left alone.
"""

from __future__ import annotations

import grp
import json
import os
import pathlib
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
import typing as t

COMMAND_TIMEOUT = 30  # s; each is done in a fraction of a second, on a slow card in some seconds
HALF_DONE = "UFHWt"  # dpkg-query(1): unpacked, half-configured, half-installed, triggers awaited or pending
COMPOSE = re.compile(r"^v?(\d+)\.\d+")
SWAP_HEADER_LINES = 1  # of /proc/swaps
MAX_PARENTS = 64  # processes between this one and sshd
SETTINGS_MODE = 0o644  # of what the role writes
BOOT_FOLDERS = ("/boot/firmware", "/boot")  # since Debian 12, before
SHORT_FLAGS = {"H": "host", "g": "data-root", "G": "group", "l": "log-level", "s": "storage-driver", "D": "debug"}
IN_FSTAB = re.compile(r"^\s*[^#\s]\S*\s+\S+\s+swap\s", re.MULTILINE)
TOP_HOSTNAME = re.compile(r"^hostname:[ \t]*[\"']?([^\"'\s#]*)", re.MULTILINE)


def said(*command: str) -> str:
    """What a command prints; empty when it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def text_of(path: str | pathlib.Path) -> str:
    """The text of a file; empty where there is none. A device tree's strings end with a zero byte."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8", errors="replace").rstrip("\0")
    except OSError:
        return ""


def packages(wanted: list[str]) -> dict[str, t.Any]:
    """Which of the wanted packages are installed, and which packages a power cut left half done."""
    listed = said("dpkg-query", "-W", "-f", "${db:Status-Abbrev}\t${Package}\n")
    rows = [row.split(None, 1) for row in listed.splitlines()]
    states = {name.strip(): state for state, name in (row for row in rows if len(row) == 2)}
    return {
        "installed": [name for name in wanted if states.get(name, "").startswith("ii")],
        "half_done": sorted(name for name, state in states.items() if state[1:2] in HALF_DONE or state.endswith("R")),
    }


def system() -> dict[str, t.Any]:
    """The release, the clock, the container that this is, and whether there is swap."""
    release = dict(re.findall(r"^(\w+)=\"?(.*?)\"?$", text_of("/etc/os-release"), re.MULTILINE))
    return {
        "suite": release.get("VERSION_CODENAME", ""),
        "now": int(time.time()),
        "container": said("systemd-detect-virt", "--container").strip(),
        "swap": bool(text_of("/proc/swaps").splitlines()[SWAP_HEADER_LINES:] or IN_FSTAB.search(text_of("/etc/fstab"))),
    }


def user(name: str) -> dict[str, t.Any] | None:
    """The account of that name; None where there is none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    primary = [group.gr_name for group in grp.getgrall() if group.gr_gid == entry.pw_gid]
    others = [group.gr_name for group in grp.getgrall() if name in group.gr_mem]
    return {"home": entry.pw_dir, "groups": sorted({*primary, *others})}


def outdated(files: list[dict[str, str]]) -> list[str]:
    """Files that do not have the content that is wanted, or another mode than the role gives."""
    return [one["path"] for one in files if not is_as_wanted(pathlib.Path(one["path"]), one)]


def is_as_wanted(path: pathlib.Path, wanted: dict[str, str]) -> bool:
    """Whether a regular file of root has its content and mode."""
    try:
        seen = path.lstat()
        content = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    mode = stat.S_IMODE(seen.st_mode)
    return stat.S_ISREG(seen.st_mode) and content == wanted["content"] and mode == SETTINGS_MODE


def wrong_folders(folders: list[dict[str, str]]) -> list[str]:
    """Folders that are not there, or not their owner's, or of another mode."""
    return [one["path"] for one in folders if not is_owned(one)]


def is_owned(wanted: dict[str, str]) -> bool:
    """Whether a folder has its owner and mode."""
    try:
        seen = pathlib.Path(wanted["path"]).stat()
        owner = pwd.getpwnam(wanted["owner"]).pw_uid
    except (OSError, KeyError):
        return False
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid == owner and stat.S_IMODE(seen.st_mode) == int(wanted["mode"], 8)


def units(names: list[str]) -> dict[str, dict[str, t.Any]]:
    """For each unit whether it is there, comes with the boot, runs, and since when."""
    fields = "--property=Id,LoadState,UnitFileState,ActiveState,ExecMainStartTimestamp"
    blocks = said("systemctl", "show", "--timestamp=unix", fields, *names).strip().split("\n\n")
    found = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in blocks if block]
    return {name: unit(values) for name, values in zip(names, found, strict=False)}


def unit(values: dict[str, str]) -> dict[str, t.Any]:
    """One unit's state, in the role's words."""
    started = values.get("ExecMainStartTimestamp", "").lstrip("@")
    return {
        "there": values.get("LoadState") == "loaded",
        "enabled": values.get("UnitFileState") in {"enabled", "static", "alias"},
        "active": values.get("ActiveState") in {"active", "activating", "reloading"},
        "started": int(started) if started.isdigit() else 0,
    }


def stale(pairs: list[dict[str, str]], found: dict[str, dict[str, t.Any]]) -> list[str]:
    """Running units that started before their file was written: a run that was cut off owes them a restart."""
    return [one["unit"] for one in pairs if 0 < found.get(one["unit"], {}).get("started", 0) < written(one["file"])]


def written(path: str) -> int:
    """When a file was written, in whole seconds; 0 where there is none, or by a clock that was ahead."""
    try:
        at = int(pathlib.Path(path).stat().st_mtime)
    except OSError:
        return 0
    return at if at <= time.time() else 0


def engine_arguments() -> list[str]:
    """What the unit gives dockerd, as its next start gives it; empty where there is no such unit.

    Files of the environment come after what the unit itself sets, and words in braces stay one word (systemd.exec(5)).
    """
    fields = ("ExecStart", "Environment", "EnvironmentFiles")
    shown = said("systemctl", "show", *(f"--property={field}" for field in fields), "docker.service")
    command = re.search(r"^ExecStart=\{.*?argv\[\]=(.*?) ; ignore_errors=", shown, re.MULTILINE)
    files = re.findall(r"^EnvironmentFiles=(\S+)", shown, re.MULTILINE)
    own = re.search(r"^Environment=(.*)$", shown, re.MULTILINE)
    given = words(own.group(1) if own else "")
    given += [word for path in files for word in words(text_of(path), comments=True)]
    environment = dict(word.partition("=")[::2] for word in given)
    return after_engine(words(command.group(1)) if command else [], environment)


def words(text: str, comments: bool = False) -> list[str]:
    """A text's words, quotes understood; empty where they do not end."""
    try:
        return shlex.split(text, comments=comments)
    except ValueError:
        return []


def after_engine(command: list[str], environment: dict[str, str]) -> list[str]:
    """The words after dockerd, with systemd's variables replaced."""
    arguments: list[str] = []
    for word in command[next((at for at, word in enumerate(command, 1) if word.endswith("dockerd")), len(command)) :]:
        whole = re.fullmatch(r"\$(\w+)", word)
        if whole:
            arguments += environment.get(whole.group(1), "").split()
        else:
            arguments.append(re.sub(r"\$\{(\w+)\}", lambda found: environment.get(found.group(1), ""), word))
    return arguments


def running_arguments() -> list[str]:
    """What the dockerd that runs was given."""
    process = said("systemctl", "show", "--property=MainPID", "--value", "docker.service").strip()
    return text_of(f"/proc/{process}/cmdline").split("\0")[1:] if process.isdigit() and process != "0" else []


def given(arguments: list[str]) -> dict[str, str]:
    """What a command line says of settings, by each name that daemon.json may have for them (--log-opt: log-opts)."""
    found: dict[str, str] = {}
    for at, word in enumerate(arguments):
        flag = re.match(r"--([a-z][a-z0-9-]*)(?:=(.*))?$", word) or re.match(r"-([HgGlsD])=?(.*)$", word)
        if flag:
            name = SHORT_FLAGS.get(flag.group(1), flag.group(1))
            following = "".join(arguments[at + 1 : at + 2])
            value = flag.group(2) or ("" if following.startswith("-") else following)
            found |= dict.fromkeys((name, f"{name}s", re.sub("y$", "ies", name)), value)
    return found


def without_config(arguments: list[str]) -> list[str]:
    """A command line without the file of the settings."""
    kept = [word for at, word in enumerate(arguments) if "--config-file" not in (word, *arguments[max(at - 1, 0) : at])]
    return [word for word in kept if not word.startswith("--config-file=")]


def docker(config: str, url: str) -> dict[str, t.Any]:
    """The engine that is there, its settings as they are, and its Compose."""
    engine = shutil.which("dockerd", path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin") or ""
    arguments = engine_arguments() if engine else []
    version = COMPOSE.match(said("docker", "compose", "version", "--short").strip())
    text = text_of(config)
    listed = [pathlib.Path("/etc/apt/sources.list"), *pathlib.Path("/etc/apt/sources.list.d").glob("*")]
    sources = [path for path in listed if path.suffix in {".list", ".sources"}]
    return {
        "engine": engine,
        "arguments": without_config(arguments),
        "given": given(arguments) | given(running_arguments()),
        "validates": bool(engine) and "--validate" in said(engine, "--help"),
        "compose": version.group(0) if version and int(version.group(1)) > 1 else "",
        "config": text,
        "readable": readable(text),
        "swarm": pathlib.Path("/var/lib/docker/swarm/docker-state.json").exists(),
        "sources": sorted(str(path) for path in sources if url in text_of(path)),
    }


def outlived() -> str:
    """Whether containers outlive a restart of the engine, and how many run, in its own words."""
    return said("docker", "info", "--format", "{{.LiveRestoreEnabled}} {{.ContainersRunning}}").strip()


def readable(text: str) -> bool:
    """Whether the engine's settings are a JSON object, or not there at all."""
    try:
        return not text.strip() or isinstance(json.loads(text), dict)
    except ValueError:
        return False


def names(boot: str) -> dict[str, str]:
    """The host's names: the kernel's, the file's, and the one that cloud-init sets again at each boot."""
    cloud = TOP_HOSTNAME.search(text_of(pathlib.Path(boot, "user-data"))) if boot else None
    return {
        "kernel": os.uname().nodename,
        "file": text_of("/etc/hostname").strip(),
        "cloud": cloud.group(1) if cloud else "",
    }


def session_interface() -> str:
    """The interface that this very SSH session came in by; empty where there is none."""
    connection = session().split()
    if len(connection) < 3:  # client, its port, the Pi's address, its port
        return ""
    try:
        rows = json.loads(said("ip", "-json", "address") or "[]")
    except ValueError:
        return ""
    addresses = {at.get("local"): row["ifname"] for row in rows for at in row.get("addr_info", ())}
    return str(addresses.get(connection[2], ""))


def session() -> str:
    """SSH_CONNECTION of the nearest parent that has it: sudo does not pass it on."""
    process = os.getpid()
    for _parent in range(MAX_PARENTS):
        found = re.search(r"(?:^|\0)SSH_CONNECTION=([^\0]*)", text_of(f"/proc/{process}/environ"))
        if found:
            return found.group(1)
        parent = re.search(r"^PPid:\s*(\d+)", text_of(f"/proc/{process}/status"), re.MULTILINE)
        process = int(parent.group(1)) if parent else 0
        if process <= 1:
            break
    return ""


def eeprom(boot: str, mark: str, wanted: dict[str, str]) -> dict[str, t.Any]:
    """The bootloader's settings, those that wait for the next boot before those that run, and how they should be.

    A Pi 5 is flashed at once and leaves no image, but says its old settings until it is restarted: the mark, in memory,
    is what it was flashed with since.
    """
    if not shutil.which("rpi-eeprom-config"):
        return {"there": False, "before": "", "after": ""}
    waiting = pathlib.Path(boot, "pieeprom.upd")
    image = [str(waiting)] if waiting.exists() else []
    before = ("" if image else text_of(mark)) or said("rpi-eeprom-config", *image)
    after = with_settings(before, wanted)
    return {"there": bool(before.strip()), "before": before, "after": after}


def with_settings(text: str, wanted: dict[str, str]) -> str:
    """The bootloader's text with the wanted values for every board; other lines stay as they are."""
    lines, section, left = [], "all", dict(wanted)
    for line in text.splitlines():
        heading = re.match(r"\s*\[(.+)\]\s*$", line)
        section = heading.group(1).lower() if heading else section
        key = line.partition("=")[0].strip()
        if key in wanted and "=" in line and section == "all":
            lines += [f"{key}={left.pop(key)}"] if key in left else []
        else:
            lines.append(line)
    if left and section != "all":
        lines.append("[all]")
    lines += [f"{key}={value}" for key, value in left.items()]
    return "\n".join(lines) + "\n"


def probe(asked: dict[str, t.Any]) -> dict[str, t.Any]:
    """All that the role needs to know, in one round trip."""
    boot = asked["boot"] or next((path for path in BOOT_FOLDERS if pathlib.Path(path, "config.txt").exists()), "")
    found = units(asked["units"])
    owed = stale(asked["stale"], found)
    model = text_of(asked["model_file"]).strip()
    has_eeprom = asked["eeprom"] and model.startswith("Raspberry Pi")
    return {
        **system(),
        **packages(asked["packages"]),
        "model": model,
        "boot": boot,
        "user": user(asked["user"]),
        "no_groups": sorted(set(asked["groups"]) - {group.gr_name for group in grp.getgrall()}),
        "names": names(boot),
        "outdated": outdated(asked["files"]),
        "present": [one["path"] for one in asked["files"] if pathlib.Path(one["path"]).exists()],
        "no_place": [path for path in asked["places"] if not pathlib.Path(path).parent.is_dir()],
        "folders": wrong_folders(asked["folders"]),
        "units": found,
        "stale": owed,
        # Asking would start an engine that is stopped.
        "outlived": outlived() if "docker.service" in owed else "",
        "docker": docker(asked["docker_config"], asked["docker_url"]),
        "session_interface": session_interface(),
        "eeprom": eeprom(boot, asked["eeprom_mark"], asked["eeprom"]) if has_eeprom else None,
        "cmdline": text_of(pathlib.Path(boot, "cmdline.txt")).strip() if boot else "",
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(json.loads(sys.argv[1]))))
