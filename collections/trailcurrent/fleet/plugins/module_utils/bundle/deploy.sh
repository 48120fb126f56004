#!/bin/sh
# Deploys the release that was unpacked beside this file: sh deploy.sh
# It verifies all of that release before it uses any of it, never asks, and needs no internet. Exit status 0: deployed.
# TRAILCURRENT_PYTHON, TRAILCURRENT_ETC and TRAILCURRENT_STATE_DIR name other places than the usual ones.
set -u
umask 022
unset CDPATH
exec </dev/null
version=@VERSION@
PATH=${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
export PATH
python=${TRAILCURRENT_PYTHON:-/usr/bin/python3}
etc=${TRAILCURRENT_ETC:-/etc/trailcurrent}

fail() {
    echo "Release $version was not deployed: $*." >&2
    exit 1
}

here=$(cd -- "$(dirname -- "$0")" && pwd -P) || fail "the folder of $0 cannot be entered; run it from where it lies"
minor=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    fail "$python does not run here; install Debian's package python3"
HOME=${HOME:-$("$python" -I -c 'import os; print(os.path.expanduser("~"))')}
state=${TRAILCURRENT_STATE_DIR:-/var/lib/trailcurrent}
if [ -z "${TRAILCURRENT_STATE_DIR:-}" ] && ! [ -w "$state" ] && ! [ -w "${state%/*}" ]; then
    state=$HOME/.local/state/trailcurrent
fi
release=$here/trailcurrent-release-$version
environment=$state/deploy/$version

# Is this the release that was signed? Judged by the system's own Python, with nothing of this folder, the user or the site.
set -- "$release" "$here/${0##*/}" "$version" "$etc/allowed_signers" "$state" "$environment"
"$python" -I -S - "$@" <<'END' || exit 1
import concurrent.futures, hashlib, json, os, platform, shutil, stat, subprocess, sys, time

RELEASE, SCRIPT, VERSION, SIGNERS, STATE, ENVIRONMENT = sys.argv[1:]
BUILD_DATE = 1795392000  # s; no Pi's clock is right that says less
DAY = 86400  # s; a date that was signed counts no further ahead of a clock that NTP has set
NEEDED = 200 * 1000 * 1000  # bytes for the release's Python
LIMIT = 8 * 1024 * 1024  # bytes of a manifest
UNPACK = "unpack the bundle again into an empty folder"


def stop(seen, todo=UNPACK):
    sys.exit("Release %s was not deployed: %s; %s." % (VERSION, seen, todo))


def opened(path):
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        stop("%s is no regular file" % ascii(path))
    return file


def keygen(*options):
    settings = {"PATH": os.environ["PATH"], "TZ": "UTC", "LC_ALL": "C"}
    command = ["ssh-keygen", "-Y", *options, "-s", RELEASE + "/manifest.json.sig"]
    done = subprocess.run(command, input=manifest, stdout=-1, stderr=-1, env=settings, timeout=60)
    said = (done.stdout if done.returncode == 0 else done.stdout + done.stderr).decode("ascii", "replace")
    lines = ["".join(c if c.isprintable() else "?" for c in line) for line in said.strip().splitlines()] or [""]
    return done.returncode == 0, lines


def record():
    try:
        with opened(STATE + "/trust.json") as file:
            kept = json.load(file)
        return int(kept["newest_released"]), set(kept["verified"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0, set()


def signer(newest):
    now = int(time.time())
    if os.path.exists("/run/systemd/timesync/synchronized"):
        newest = min(newest, now + DAY)
    at = max(now, BUILD_DATE, newest)
    judged = time.strftime("verify-time=%Y%m%d%H%M%S", time.gmtime(at))
    found, lines = keygen("find-principals", "-f", SIGNERS, "-O", judged)
    if found:
        name = lines[0].split(",")[0]
        allowed = ["-n", "trailcurrent-deployment", "-I", name, "-f", SIGNERS, "-O", judged]
        found, lines = keygen("verify", *allowed)
    if not found:
        seen = SIGNERS, time.strftime("%Y-%m-%d", time.gmtime(at)), ", ".join(lines)
        early = "not yet valid" in seen[2]
        todo = "set this Pi's clock" if early else "take a release that such a key signed, or allow its key by set-up"
        stop("its signature is by no key that %s allows on %s (%s)" % seen, todo)
    return name


def judge(signed):
    newest, verified = record()
    try:
        trusted = bool(os.stat(SIGNERS))
    except FileNotFoundError:
        trusted = False
    if not signed:
        if trusted:
            stop("it has no signature, and %s asks for one" % SIGNERS, "take one that is signed")
        return "has no signature; none is asked for, because there is no %s" % SIGNERS
    if not shutil.which("ssh-keygen"):
        stop("its signature cannot be verified without ssh-keygen", "install Debian's package openssh-client")
    right, lines = keygen("check-novalidate", "-n", "trailcurrent-deployment")
    if not right:
        stop("its signature is not one of its manifest (%s)" % lines[-1])
    if not trusted:
        first = "has the signature of a key that is trusted on first use, because there is no %s (%s)"
        return first % (SIGNERS, lines[-1])
    if hashlib.sha256(manifest).hexdigest() in verified:
        return "was verified before, and is what it was"
    return "is signed by " + signer(newest)


def files(folder, below=""):
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from files(entry.path, below + entry.name + "/")
        elif entry.is_file(follow_symlinks=False):
            yield below + entry.name
        else:
            stop("%s is a link, or no regular file" % ascii(below + entry.name))


def check(path, entry):
    digest = hashlib.sha256()
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        for part in iter(lambda: file.read(1 << 20), b"") if size == entry["size"] else ():
            digest.update(part)
    if digest.hexdigest() != entry["sha256"]:
        stop("%s is not the file that was signed" % ascii(entry["path"]))


def require(needs):
    mine, machine = "%d.%d" % sys.version_info[:2], platform.machine() if sys.maxsize > 1 << 32 else "32-bit"
    if mine not in needs["python"] or machine not in needs["architectures"]:
        wanted = "Python %s on %s" % (" or ".join(needs["python"]), " or ".join(needs["architectures"]))
        stop("it is for %s, and this is Python %s on %s" % (wanted, mine, machine), "update this Pi's system")
    place = STATE
    while not os.path.isdir(place):
        place = os.path.dirname(place) or "."
    free = shutil.disk_usage(place).free
    if free < NEEDED and not os.path.exists(ENVIRONMENT + "/complete"):
        seen = place, free // 10**6, NEEDED // 10**6
        stop("%s has %d MB free, and its Python needs %d" % seen, "free some room there")


def main():
    global manifest
    if not stat.S_ISDIR(os.lstat(RELEASE).st_mode):
        stop("%s is a link, or no folder" % ascii(RELEASE))
    found = set(files(RELEASE))
    with opened(RELEASE + "/manifest.json") as file:
        manifest = file.read(LIMIT)
    said = judge("manifest.json.sig" in found)
    named = json.loads(manifest.decode("ascii"))
    if named["format"] != 1 or named["version"] != VERSION:
        stop("its manifest is that of %s in format %s" % (ascii(named["version"]), ascii(named["format"])))
    require(named["requires"])
    listed = {entry["path"] for entry in named["files"]} | {"manifest.json", "manifest.json.sig"}
    for name in sorted(found - listed):
        stop("%s is in its folder, and not in its manifest" % ascii(name))
    for name in sorted(listed - found - {"manifest.json.sig"}):
        stop("%s is missing" % ascii(name))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        places = [RELEASE + "/" + entry["path"] for entry in named["files"]]
        list(pool.map(check, [SCRIPT, *places], [named["deploy"], *named["files"]]))
    print("Release %s %s; each of its %d files is the one in its manifest." % (VERSION, said, len(places)), flush=True)


try:
    main()
except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, subprocess.SubprocessError) as error:
    stop("it cannot be read (%s)" % ascii(str(error)))
END

# Its own Ansible, from its own wheels: pip holds them against the hashes of the lock once more.
make_environment() {
    rm -rf "$environment" && mkdir -p "$environment/collections/ansible_collections/trailcurrent/fleet" || return
    "$python" -I -m venv --without-pip "$environment/python" &&
        "$environment/python/bin/python" -I -m ensurepip --default-pip &&
        "$environment/python/bin/python" -I -m pip --isolated install --quiet --no-index --no-deps --no-cache-dir \
            --disable-pip-version-check --require-hashes --only-binary :all: --find-links "$release/wheels" \
            --requirement "$release/wheels/requirements-$minor.lock" &&
        tar -xzf "$1" --no-same-owner -C "$environment/collections/ansible_collections/trailcurrent/fleet" &&
        : >"$environment/ansible.cfg" && sync -f "$environment" && echo "$mark" >"$environment/complete"
}

# One at a time: a second deploy.sh waits here, and finds it made.
have_environment() {
    flock -w 900 9 || { echo "another deployment holds $environment.lock"; return 1; }
    [ "$(cat "$environment/complete" 2>/dev/null)" = "$mark" ] && return
    make_environment "$1" || { rm -rf "$environment"; return 1; }
}

mark="$minor $(sha256sum <"$release/manifest.json")"
"$python" -I -c 'import venv; from ensurepip import bootstrap' 2>/dev/null ||
    fail "$python cannot make virtual environments; install Debian's package python3-venv"
set -- "$release"/project/trailcurrent-fleet-*.tar.gz
[ $# = 1 ] && [ -f "$1" ] && [ -f "$release/wheels/requirements-$minor.lock" ] ||
    fail "it does not carry its own playbooks and the Python for them; build it with the payload"
mkdir -p "$state/deploy" 2>/dev/null || fail "$state cannot be written; run it as the user whose folder that is"
echo "Preparing its Python and Ansible in $environment ..."
said=$(have_environment "$1" 2>&1 9>"$environment.lock") || {
    said=$(echo "$said" | grep . | tail -n 1)
    fail "its Python could not be installed below $environment ($said); mend that and run it again"
}

# Nothing of the caller's settings, and no ansible.cfg but an empty one.
cd "$environment" || fail "$environment cannot be entered"
exec env -i HOME="$HOME" PATH="$PATH" LC_ALL=C.UTF-8 ANSIBLE_CONFIG="$environment/ansible.cfg" \
    ANSIBLE_HOME="$environment/ansible" ANSIBLE_COLLECTIONS_PATH="$environment/collections" \
    FLEET_RELEASE="$release" FLEET_STATE_DIR="$state" FLEET_ETC="$etc" \
    "$environment/python/bin/ansible-playbook" --inventory localhost, trailcurrent.fleet.deploy
