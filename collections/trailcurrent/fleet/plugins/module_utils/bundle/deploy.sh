#!/bin/sh
# Deploys the release that was unpacked beside this file: sh deploy.sh
# It verifies all of that release before it uses any of it, never asks, and needs no internet. Exit status 0: deployed.
# TRAILCURRENT_PYTHON, TRAILCURRENT_ETC and TRAILCURRENT_STATE_DIR name other places than the usual ones;
# TRAILCURRENT_ALLOW_DOWNGRADE=yes goes back to a release that is older than the deployed one.
fail() {
    echo "Release @VERSION@ was not deployed: $*." >&2
    exit 1
}

main() { # the shell has read all of it before it runs any of it
    umask 022
    unset CDPATH
    [ -n "${HOME:-}" ] || unset HOME
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    [ -f "$0" ] && [ -r "$0" ] || fail "it cannot see where it lies; run it as a file: sh deploy.sh"
    here=$(cd -- "$(dirname -- "$0")" && pwd -P) || fail "the folder of $0 cannot be entered; run it from where it lies"
    python=${TRAILCURRENT_PYTHON:-/usr/bin/python3}
    "$python" -I -S -c '' </dev/null >/dev/null 2>&1 ||
        fail "$python does not run here; install Debian's package python3"
    # The system's own Python, with nothing of this folder, the user or the site.
    exec "$python" -I -S -X utf8 - "@VERSION@" "$here" "${0##*/}" <<'END'
import base64, concurrent.futures, ctypes, fcntl, hashlib, json, os, platform, re, shutil
import signal, stat, subprocess, sys, time

VERSION, HERE, SCRIPT = sys.argv[1:]
RELEASE = HERE + "/trailcurrent-release-" + VERSION
MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
ARMOUR = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
PURPOSE = "trailcurrent-deployment"
BUILD_DATE = 1795392000  # s; no Pi's clock is right that says less
DAY = 86400  # s; a date that was signed counts no further ahead of a clock that NTP has set
FAR, LATEST = 1 << 40, 253402300799  # s; what no date says, and what ssh-keygen can be told
NEEDED = 200 * 1000 * 1000  # bytes for the release's Python
PYTHON, MACHINE = "%d.%d" % sys.version_info[:2], platform.machine() if sys.maxsize > 1 << 32 else "32-bit"
ETC = os.path.abspath(os.environ.get("TRAILCURRENT_ETC") or "/etc/trailcurrent")
SIGNERS = ETC + "/allowed_signers"
usual = [path for path in ("/var/lib/trailcurrent", "/var/lib") if os.access(path, os.W_OK)]
usual = "/var/lib/trailcurrent" if usual else os.path.expanduser("~/.local/state/trailcurrent")
STATE = os.path.abspath(os.environ.get("TRAILCURRENT_STATE_DIR") or usual)
ENVIRONMENT = STATE + "/deploy/" + VERSION
SETTINGS = {"PATH": os.environ["PATH"], "HOME": os.path.expanduser("~"), "LC_ALL": "C.UTF-8"}  # nothing of the caller's

def stop(seen, todo="unpack the bundle again into an empty folder"):
    said = "Release %s was not deployed: %s; %s." % (VERSION, seen, todo)
    sys.exit("".join(c if c.isprintable() else "?" for c in said))

def opened(path):
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        raise ValueError("%s is no regular file" % ascii(path))
    return open(number, "rb")

def read(path, limit):
    with opened(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError("%s has more than %d bytes" % (ascii(path), limit))
    return content

def keygen(manifest, *options):
    """Whether ssh-keygen agrees, and what it says."""
    command = ["ssh-keygen", "-Y", *options, "-s", RELEASE + "/" + SIGNATURE]
    settings = {**SETTINGS, "TZ": "UTC", "LC_ALL": "C"}
    done = subprocess.run(command, input=manifest, stdout=-1, stderr=-1, env=settings, timeout=60)
    said = (done.stderr if done.returncode else done.stdout).decode("utf-8", "surrogateescape")
    return not done.returncode, said.replace("\r", "").strip().split("\n")

def is_canonical(signature):
    """Whether it has the one form that ssh-keygen writes; it accepts others, which say what nobody signed."""
    blob = base64.b64decode(b"".join(signature.split(b"\n")[1:-2]))
    text = base64.b64encode(blob)
    lines = b"".join(text[start : start + 70] + b"\n" for start in range(0, len(text), 70))
    reserved = 10  # behind the key and the purpose
    for _field in range(2):
        reserved += 4 + int.from_bytes(blob[reserved : reserved + 4], "big")
    return lines.join(ARMOUR) == signature and blob[reserved : reserved + 4] == bytes(4)

def record():
    """What this Pi has verified, within the bounds of bundle/verify/trust.py; what cannot be read counts as empty."""
    try:
        kept = json.loads(read(STATE + "/trust.json", 1 << 20))
        verified, dates = dict(kept["verified"]), [kept["newest_released"]]
        for digest, entry in verified.items():
            dates += entry["released"], entry["at"]
            texts = entry["version"], entry["principal"], entry["fingerprint"]
            if len(entry) != 5 or not re.fullmatch("[0-9a-f]{64}", digest) or {*map(type, texts)} != {str}:
                raise ValueError(digest)
        if any(type(date) is not int or not 0 <= date <= FAR for date in dates):
            raise ValueError(dates)
        return dates[0], verified
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError):
        return 0, {}

def clock_is_synced():
    timex = (ctypes.c_long * 128)()  # adjtimex(2): the sixth is its status, 0x40 STA_UNSYNC
    kernel = ctypes.CDLL(None).adjtimex(timex) >= 0 and not timex[5] & 0x40
    return kernel or os.path.exists("/run/systemd/timesync/synchronized")

def signer(manifest, signers, fingerprint, at):
    """Who signed it, judged as of then; else None, and the refusal that is nearest to trust."""
    when = time.strftime("verify-time=%Y%m%d%H%M%S", time.gmtime(min(max(at, 1), LATEST)))
    asked = ["-f", SIGNERS, "-O", when]
    found, said = keygen(manifest, "find-principals", *asked)
    names, refusals = said if found else [], {} if found else {said[0]: ""}
    for line in signers.decode("utf-8", "surrogateescape").split("\n"):  # find-principals stops at a key's first line
        listed = re.match(r'\s*(?:"([^"]+)"|([^\s"#][^\s"]*))', line)
        names += (listed[1] or listed[2]).split(",") if listed and "\0" not in line else []
    for name in dict.fromkeys(names):
        right, said = keygen(manifest, "verify", "-n", PURPOSE, "-I", name, *asked)
        if right and said[0].split()[-1] == fingerprint:
            return name, ""
        refusals[said[0]] = name + ", "
    why = min(refusals, key=lambda said: ("expired" not in said, "not yet valid" not in said))
    return None, refusals[why] + why

def judge(manifest, signature):
    try:
        signers = read(SIGNERS, 1 << 18)
    except FileNotFoundError:  # which a link to nowhere is not
        signers = None
    except (OSError, ValueError) as error:
        stop("%s cannot be used: %s" % (SIGNERS, error), "make it a file, and no link, that this user can read")
    if signature is None:
        if signers is not None:
            stop("it has no signature, and %s asks for one" % SIGNERS, "take one that is signed")
        return "has no signature; none is asked for, because there is no %s" % SIGNERS
    if not shutil.which("ssh-keygen"):
        stop("its signature cannot be verified without ssh-keygen", "install Debian's package openssh-client")
    if not is_canonical(signature):
        stop("its signature is not one as ssh-keygen writes it")
    right, said = keygen(manifest, "check-novalidate", "-n", PURPOSE)
    if not right:
        stop("its signature is not one of its manifest (%s)" % said[0])
    if signers is None:
        first = "has the signature of a key that is trusted on first use, because there is no %s (%s)"
        return first % (SIGNERS, said[0])
    newest, verified = record()
    known, fingerprint = verified.get(hashlib.sha256(manifest).hexdigest()), said[0].split()[-1]
    clock, synced = int(time.time()), clock_is_synced()
    at = max(clock, BUILD_DATE, min(newest, clock + DAY) if synced else newest)
    before = known is not None and known["fingerprint"] == fingerprint  # its key's time is not asked for again
    name, why = signer(manifest, signers, fingerprint, known["at"] if before else at)
    if name is None:
        todo = "allow it by set-up, or take a release that an allowed key signed"
        if "not yet valid" in why:
            todo = "set this Pi's clock"
        elif "expired" in why and at == clock and not synced and not before:
            todo += "; that is this machine's clock, which NTP has not set: if it is wrong, set it first"
        stop("%s does not allow the key %s that signed it (%s)" % (SIGNERS, fingerprint, why), todo)
    return "%s signed by %s" % ("was verified before, and is" if before else "is", name)

def names(folder, below=""):
    """All files, and all folders with a slash behind."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield below + entry.name + "/"
            yield from names(entry.path, below + entry.name + "/")
        elif entry.is_file(follow_symlinks=False):
            yield below + entry.name
        else:
            stop("%s is a link, or no regular file" % ascii(below + entry.name))

def check(path, entry, copy=None):
    digest = hashlib.sha256()
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        for part in iter(lambda: file.read(1 << 20), b"") if size == entry["size"] else ():
            digest.update(part)
            copy and copy.write(part)
    if digest.hexdigest() != entry["sha256"]:
        stop("%s is not the file that was signed" % ascii(entry["path"]))

def require(needs):
    if PYTHON not in needs["python"] or MACHINE not in needs["architectures"]:
        wanted = "Python %s on %s" % (" or ".join(needs["python"]), " or ".join(needs["architectures"]))
        stop("it is for %s, and this is Python %s on %s" % (wanted, PYTHON, MACHINE), "update this Pi's system")
    place = STATE
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free
    if free < NEEDED and not os.path.exists(ENVIRONMENT + "/complete"):
        seen = place, free // 10**6, NEEDED // 10**6
        stop("%s has %d MB free, and its Python needs %d" % seen, "free some room there")
    try:
        import venv
        from ensurepip import bootstrap
    except ImportError:
        stop("%s cannot make virtual environments" % sys.executable, "install Debian's package python3-venv")

def verify():
    """The files of the release, all of which are what was signed, and its manifest's digest."""
    if not stat.S_ISDIR(os.lstat(RELEASE).st_mode):
        stop("%s is a link, or no folder" % ascii(RELEASE))
    found = set(names(RELEASE))
    manifest = read(RELEASE + "/" + MANIFEST, 1 << 23)
    said = judge(manifest, read(RELEASE + "/" + SIGNATURE, 1 << 14) if SIGNATURE in found else None)
    named = json.loads(manifest.decode("utf-8"))
    if named["format"] != 1 or named["version"] != VERSION:
        stop("its manifest is that of %s in format %s" % (ascii(named["version"]), ascii(named["format"])))
    require(named["requires"])
    listed = {entry["path"] for entry in named["files"]} | {MANIFEST}
    folders = {path[: slash.end()] for path in listed for slash in re.finditer("/", path)}
    for name in sorted(found - listed - folders - {SIGNATURE}):
        stop("%s is in its folder, and not in its manifest" % ascii(name))
    for name in sorted(listed - found):
        stop("%s is missing" % ascii(name))
    places = [HERE + "/" + SCRIPT, *(RELEASE + "/" + entry["path"] for entry in named["files"])]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(check, places, [named["deploy"], *named["files"]]))
    right = "each of its %d files is the one in its manifest" % len(named["files"])
    print("Release %s %s; %s." % (VERSION, said, right), flush=True)
    return named["files"], hashlib.sha256(manifest).hexdigest()

def run(*command):
    settings = {**SETTINGS, "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=-1, stderr=-2, env=settings)
    if done.returncode:
        raise OSError(done.stdout.decode("utf-8", "replace").strip().split("\n")[-1])

def make_environment(entries, lock, projects):
    """Its own Ansible from its own wheels: out of copies that were verified, and that no other user can change."""
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    os.mkdir(ENVIRONMENT, 0o700)
    place, python = ENVIRONMENT + "/release/", ENVIRONMENT + "/python/bin/python"
    os.mkdir(place)
    for entry in entries:
        if entry["path"] in (lock, *projects) or re.fullmatch("wheels/.*(-any|%s)[.]whl" % MACHINE, entry["path"]):
            with open(place + os.path.basename(entry["path"]), "xb") as copy:
                check(RELEASE + "/" + entry["path"], entry, copy)
    run(sys.executable, "-I", "-m", "venv", "--without-pip", ENVIRONMENT + "/python")
    run(python, "-I", "-m", "ensurepip", "--default-pip")
    pip = python, "-I", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-cache-dir"
    pip += "--require-hashes", "--only-binary", ":all:", "--find-links", place
    run(*pip, "--requirement", place + os.path.basename(lock))
    for path, name in projects.items():
        collection = ENVIRONMENT + "/collections/ansible_collections/" + name
        os.makedirs(collection)
        run("tar", "-xzf", place + os.path.basename(path), "--no-same-owner", "-C", collection)
    shutil.rmtree(place)
    open(ENVIRONMENT + "/ansible.cfg", "x").close()
    os.sync()

def have_environment(entries, mark):
    """One at a time: a second deploy.sh waits here, and finds it made."""
    paths, lock = [entry["path"] for entry in entries], "wheels/requirements-%s.lock" % PYTHON
    projects = [re.fullmatch("project/([a-z0-9_]+)-([a-z0-9_]+)-[^/]+[.]tar[.]gz", path) for path in paths]
    projects = {found[0]: found[1] + "/" + found[2] for found in projects if found}  # as Galaxy names a collection
    ours = [path for path in projects if projects[path] == "trailcurrent/fleet"]
    if len(ours) != 1 or len({*projects.values()}) != len(projects) or lock not in paths:
        stop("it does not carry its own playbooks and the Python for them", "build it with the payload")
    print("Preparing its Python and Ansible in %s ..." % ENVIRONMENT, flush=True)
    os.makedirs(STATE + "/deploy", exist_ok=True)
    complete = ENVIRONMENT + "/complete"
    with open(ENVIRONMENT + ".lock", "a") as guard:
        signal.signal(signal.SIGALRM, lambda *_: stop("another deployment holds %s.lock" % ENVIRONMENT, "run it later"))
        signal.alarm(900)
        fcntl.flock(guard, fcntl.LOCK_EX)
        signal.alarm(0)
        if os.path.exists(complete) and read(complete, 200) == mark:
            return
        try:
            make_environment(entries, lock, projects)
            with open(complete, "xb") as file:
                file.write(mark)
        finally:
            if not os.path.exists(complete):
                shutil.rmtree(ENVIRONMENT, ignore_errors=True)

def main():
    entries, digest = verify()
    try:
        have_environment(entries, ("%s %s\n" % (PYTHON, digest)).encode())
    except OSError as error:
        stop("its Python could not be installed below %s (%s)" % (ENVIRONMENT, error), "mend that and run it again")
    os.chdir(ENVIRONMENT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    places = {"FLEET_RELEASE": RELEASE, "FLEET_STATE_DIR": STATE, "FLEET_ETC": ETC}
    wishes = {"FLEET_ALLOW_DOWNGRADE": os.environ.get("TRAILCURRENT_ALLOW_DOWNGRADE") or "no"}
    ansible = {"CONFIG": "ansible.cfg", "HOME": "ansible", "COLLECTIONS_PATH": "collections"}
    ansible = {"ANSIBLE_" + name: ENVIRONMENT + "/" + path for name, path in ansible.items()}
    command = [ENVIRONMENT + "/python/bin/ansible-playbook", "--inventory", "localhost,", "trailcurrent.fleet.deploy"]
    os.execve(command[0], command, {**SETTINGS, **ansible, **places, **wishes})

try:
    main()
except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, subprocess.SubprocessError) as error:
    stop("it cannot be read (%s)" % error)
END
}

main "$@"; exit
