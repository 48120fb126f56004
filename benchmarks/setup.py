"""How long setting RVs up takes: one bare host, four at once beside it, and a host where nothing is left to do.

    python benchmarks/setup.py [--suite trixie] [--hosts 4]

As root on Debian: the hosts are containers with systemd as process 1 and nothing but what Pi OS Lite has, reached
by SSH (molecule/image/build --bare); their packages lie in them, so that no network is measured. One run each: a second
`setup.yml` on a bare host would not find it bare. Downloads of wheels are done by a first host that is not counted.
"""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import typing as t

ROOT: t.Final = pathlib.Path(__file__).resolve().parents[1]
FLAGS: t.Final = [
    *("--runtime=runc", "--systemd=always", "--privileged", "--cgroupns=private", "--no-hosts", "--dns=none"),
    *("--ulimit=nofile=1024:4096", "--ulimit=nproc=4096:4096", "--volume=/var/lib/docker"),
]
OWN_NAMES: t.Final = r"umount /etc/hostname; hostname >/etc/hostname; printf '127.0.0.1\tlocalhost\n' >/etc/hosts"
LIMIT: t.Final = 40.0  # s that a run on a host that is set up may take
FOUR_TO_ONE: t.Final = 1.8  # what four at once may take, of what one takes


def run(*command: str | pathlib.Path) -> str:
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def bare_hosts(suite: str, names: list[str], key: pathlib.Path) -> collections.abc.Iterator[dict[str, str]]:
    """Bare hosts by name, each with its address; gone afterwards."""
    image = run(ROOT / "molecule/image/build", "--bare", suite)
    public = key.with_suffix(".pub").read_text().strip()
    let_in = f"install -d -m 700 -o pi -g pi ~pi/.ssh; echo '{public}' >~pi/.ssh/authorized_keys"
    try:
        for name in names:
            run("podman", "run", "--detach", "--replace", "--name", name, "--hostname", name, *FLAGS, image)
        for name in names:
            started = ["podman", "exec", name, "systemctl", "is-system-running", "--wait"]
            subprocess.run(started, check=False, capture_output=True)
            run("podman", "exec", name, "sh", "-c", f"{OWN_NAMES}; {let_in}")
        address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        yield {name: run("podman", "inspect", "--format", address, name) for name in names}
    finally:
        subprocess.run(["podman", "rm", "--force", "--time=0", *names], check=False, capture_output=True)


def inventory(hosts: dict[str, str], key: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """An inventory of the hosts, as an owner writes it."""
    shared = {
        "ansible_user": "pi",
        "ansible_become": True,
        "ansible_become_password": "raspberry",
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        "environment_files_mqtt_password": "a-broker-password",
        "environment_files_admin_password": "an-admin-password",
        "environment_files_node_red_password": "a-node-red-password",
        "raspberry_pi_compose": True,
    }
    listed = {name: {"ansible_host": address, "fleet_hostname": name} for name, address in hosts.items()}
    path = folder / "hosts.json"
    path.write_text(json.dumps({"rvs": {"hosts": listed, "vars": shared}}))
    return path


def set_up(hosts: dict[str, str], key: pathlib.Path, folder: pathlib.Path) -> tuple[float, int]:
    """Run setup.yml on all of ``hosts`` at once: seconds, and how many tasks changed something."""
    command = [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), str(ROOT / "playbooks/setup.yml")]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_SSH_PIPELINING": "1"}
    started = time.monotonic()
    done = subprocess.run(
        [*command, "-i", str(inventory(hosts, key, folder)), "-e", f"fleet_report_file={folder}/report.json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(done.stdout[-4000:] + done.stderr[-1000:])
    return seconds, sum(map(int, re.findall(r"changed=(\d+)", done.stdout)))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="trixie", choices=["trixie", "bookworm"])
    parser.add_argument("--hosts", type=int, default=4)
    options = parser.parse_args()
    names = [f"trailcurrent-bench-{number}" for number in range(options.hosts + 2)]
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        key = folder / "id_ed25519"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        with bare_hosts(options.suite, names, key) as hosts:
            listed = list(hosts.items())
            set_up(dict(listed[:1]), key, folder)
            one, changed = set_up(dict(listed[1:2]), key, folder)
            again, changed_again = set_up(dict(listed[1:2]), key, folder)
            many, _changed = set_up(dict(listed[2:]), key, folder)
    rows = [
        ("one bare host", f"{one:.1f} s", f"{changed} changes", ""),
        ("the same again", f"{again:.1f} s", f"{changed_again} changes", f"under {LIMIT:.0f} s, 0 changes"),
        (f"{options.hosts} bare hosts at once", f"{many:.1f} s", f"{many / one:.2f} x one", f"under {FOUR_TO_ONE} x"),
    ]
    for row in [("setup.yml", "takes", "", "must"), *rows]:
        sys.stdout.write("{:24} {:>9} {:>12}  {}\n".format(*row))


if __name__ == "__main__":
    main()
