"""Tries a firewall out on the Pi, so that it cannot lock its operator out: runs there by its own Python.

Usage: ``python3 -c <this text> VERB FILE [SECONDS]``; FILE is what the Pi loads at boot. What is printed is one JSON
object; exit status 3 with one sentence on standard error is a refusal.

``look``     what is there: nft, sshd's ports, the digest of the rules that are loaded, FILE's text
``check``    whether nft takes the rules on standard input; changes nothing
``try``      load the rules on standard input, and have systemd take them back after SECONDS
``confirm``  keep them: FILE holds them now. Refused when they were taken back already.

While rules are on trial, FILE still holds the old ones: a power cut takes the new ones back as well. The file ``armed``
is renamed by who decides first, `confirm` or systemd's timer, so that only one of them can.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

TABLE = ("inet", "trailcurrent")
NFT = "/usr/sbin/nft"
SSHD = "/usr/sbin/sshd"
UNIT = "trailcurrent-firewall-revert"
FOLDER = pathlib.Path("/run/trailcurrent-firewall")
EMPTY = "table {0} {1}\ndelete table {0} {1}\n".format(*TABLE)
TIMEOUT = 30  # s, for each command; they take milliseconds
REFUSED = 3
# The old table as it was, or none where even that cannot be loaded: nobody is locked out by having none.
REVERT = (
    "cd {folder} && mv armed reverted || exit 0; "
    "{nft} -f before.nft || {nft} delete table inet trailcurrent; rm -f {new}"
)


def run(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command's result, whatever it is; one that is not there fails like any other."""
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def refuse(sentence: str) -> None:
    """Leave with a sentence."""
    sys.stderr.write(" ".join(sentence.split()) + "\n")
    sys.exit(REFUSED)


def listing() -> str:
    """The rules of our table that are loaded; "" when there are none."""
    done = run(NFT, "--stateless", "list", "table", *TABLE)
    return done.stdout if done.returncode == 0 else ""


def look(file: pathlib.Path) -> dict[str, object]:
    """All that the role needs to know, in one round trip."""
    digest = re.search(r'^\s*comment "([0-9a-f]{64})"', listing(), re.MULTILINE)
    ports = re.findall(r"^port (\d+)$", run(SSHD, "-T").stdout, re.MULTILINE)
    try:
        text = file.read_text()
    except OSError:
        text = ""
    return {
        "nft": os.access(NFT, os.X_OK),
        "folder": file.parent.is_dir(),
        "ssh_ports": sorted(set(ports), key=int),
        "loaded": digest[1] if digest else "",
        "text": text,
    }


def check(rules: str) -> None:
    """Refuse rules that nft does not take."""
    done = run(NFT, "--check", "--file", "/dev/stdin", text=rules)
    if done.returncode:
        refuse(done.stderr)


def revert_command(file: pathlib.Path) -> str:
    """What systemd runs when nobody confirms."""
    return REVERT.format(folder=FOLDER, nft=NFT, new=new_file(file))


def new_file(file: pathlib.Path) -> pathlib.Path:
    """Where rules on trial are."""
    return file.with_suffix(".new")


def write(path: pathlib.Path, text: str) -> None:
    """Write a file so that a power cut cannot leave half of it once it is renamed."""
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def try_out(file: pathlib.Path, rules: str, seconds: str) -> None:
    """Load the rules; systemd takes them back unless somebody confirms."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    # A run that broke off may have left rules on trial; what they replaced is what counts as old.
    run("/bin/sh", "-c", revert_command(file))
    disarm()
    check(rules)
    write(new_file(file), rules)
    write(FOLDER / "before.nft", EMPTY + listing())
    (FOLDER / "armed").touch()
    timer = ("systemd-run", f"--unit={UNIT}", f"--on-active={seconds}", "--timer-property=AccuracySec=100ms")
    armed = run(*timer, "/bin/sh", "-c", revert_command(file))
    loaded = run(NFT, "--file", str(new_file(file))) if armed.returncode == 0 else armed
    if loaded.returncode:
        run("/bin/sh", "-c", revert_command(file))
        disarm()
        refuse(loaded.stderr)


def disarm() -> None:
    """End the timer."""
    run("systemctl", "stop", f"{UNIT}.timer")
    run("systemctl", "reset-failed", f"{UNIT}.service")


def confirm(file: pathlib.Path) -> None:
    """Keep the rules on trial, and load them at boot from now on."""
    try:
        (FOLDER / "armed").rename(FOLDER / "confirmed")
    except FileNotFoundError:
        refuse("The new rules were taken back before they were confirmed.")
    disarm()
    new_file(file).replace(file)


def main() -> None:
    """Do what the command line says."""
    verb, file = sys.argv[1], pathlib.Path(sys.argv[2])
    os.umask(0o022)
    if verb == "check":
        check(sys.stdin.read())
    elif verb == "try":
        try_out(file, sys.stdin.read(), sys.argv[3])
    elif verb == "confirm":
        confirm(file)
    sys.stdout.write(json.dumps(look(file)))


if __name__ == "__main__":
    main()
