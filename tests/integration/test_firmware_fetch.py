"""Firmware from release pages: the module against hosts that answer as GitHub does, and against those that do not."""

from __future__ import annotations

import collections.abc
import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import ssl
import subprocess
import sys
import threading
import time
import typing as t

import pytest
import yaml

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.firmware_fetch.engine import PARALLEL
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import web
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run
from ansible_collections.trailcurrent.fleet.plugins.modules import firmware_fetch
from virtual_rv.certificates import make_certificates
from virtual_rv.image import make_image
from virtual_rv.release_page import Faults, ReleasePages, Repository

ROOT = pathlib.Path(__file__).resolve().parents[2]
GNSS, RELAY = "owner/gnss", "owner/relay"
SIZE = 4096


def image(version: str, **said: t.Any) -> bytes:
    return make_image(size=SIZE, version=version, **{"chip": "esp32c6", **said})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class SendsOn(http.server.BaseHTTPRequestHandler):
    """Sends everybody on to one place."""

    place: t.ClassVar[str] = ""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.place)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def served(server: http.server.ThreadingHTTPServer) -> collections.abc.Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Laptop:
    """A user's folder, and the module as it runs there."""

    def __init__(self, folder: pathlib.Path, pages: ReleasePages) -> None:
        self.folder = folder
        self.pages = pages
        self.firmware = folder / "firmware"
        self.options: dict[str, t.Any] = {}
        self.warnings: list[str] = []

    def run(self, sources: dict[str, t.Any], *, check: bool = False, **said: t.Any) -> dict[str, t.Any]:
        defaults = {"download_url": None, "proxy": None, "token": None, "timeout": 5.0, "api_url": self.pages.api_url}
        options = {**defaults, "path": str(self.firmware), "sources": sources, **self.options, **said}
        self.pages.requests.clear()
        return firmware_fetch.act(options, Run(check=check, diff=True, warn=self.warnings.append))

    def fail(self, sources: dict[str, t.Any], **said: t.Any) -> FleetError:
        with pytest.raises(FleetError) as failed:
            self.run(sources, **said)
        return failed.value

    def files(self) -> dict[str, bytes]:
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}

    def lock(self) -> dict[str, t.Any]:
        return json.loads((self.firmware / "firmware.lock.json").read_bytes())["types"]

    def hosts(self) -> list[str]:
        return [request.host for request in self.pages.requests]


@pytest.fixture
def pages() -> collections.abc.Iterator[ReleasePages]:
    with ReleasePages() as pages:
        pages.publish(GNSS, "v1.1.0", {"firmware.bin": image("1.1.0")})
        pages.publish(GNSS, "v1.2.0", {"firmware.bin": image("1.2.0"), "gnss-1.2.0.elf": b"ELF"})
        pages.publish(RELAY, "v2.0.0", {f"relay-addr{n}-2.0.0.bin": image("2.0.0", seed=n) for n in (1, 2)})
        pages.repositories["owner/empty"] = Repository()
        yield pages


@pytest.fixture
def laptop(tmp_path: pathlib.Path, pages: ReleasePages, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(web, "PAUSE", 0.01)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    return Laptop(tmp_path / "home", pages)


NEWEST = {"gnss_module": {"repository": GNSS, "target": "esp32c6"}}
PINNED = {"gnss_module": {"repository": GNSS, "version": "v1.1.0"}}
ADDRESSED = {
    "switchback_relay": {
        "repository": RELAY,
        "assets": {1: "relay-addr1-{version}.bin", "addr2": "relay-addr2-{version}.bin"},
    }
}


def test_the_newest_release_of_each_type_is_fetched_recorded_and_then_left_alone(laptop: Laptop) -> None:
    first = laptop.run({**NEWEST, **ADDRESSED})
    assert first["changed"]
    assert [(row["type"], row["status"], row["version"]) for row in first["results"]] == [
        ("gnss_module", "updated", "v1.2.0"),
        ("switchback_relay", "updated", "v2.0.0"),
    ]
    files = laptop.files()
    assert files.pop("firmware/firmware.lock.json")
    assert files == {
        "firmware/wired/gnss_module/firmware.bin": image("1.2.0"),
        "firmware/wired/switchback_relay/addr1/firmware.bin": image("2.0.0", seed=1),
        "firmware/wired/switchback_relay/addr2/firmware.bin": image("2.0.0", seed=2),
    }
    assert laptop.lock()["gnss_module"] == {
        "repository": GNSS,
        "version": "v1.2.0",
        "files": {
            "gnss_module/firmware.bin": {
                "asset": "firmware.bin",
                "url": f"{laptop.pages.url('web')}/{GNSS}/releases/download/v1.2.0/firmware.bin",
                "size": SIZE,
                "sha256": sha256(image("1.2.0")),
            }
        },
    }
    before = {path: path.stat().st_mtime_ns for path in laptop.folder.rglob("*")}
    second = laptop.run({**NEWEST, **ADDRESSED})
    assert (second["changed"], second["diff"]["before"]) == (False, second["diff"]["after"])
    assert {row["status"] for row in second["results"]} == {"up_to_date"}
    assert laptop.hosts() == ["api", "api"]
    assert {path: path.stat().st_mtime_ns for path in laptop.folder.rglob("*")} == before


def test_an_unchanged_page_is_not_sent_again(laptop: Laptop) -> None:
    laptop.run(NEWEST)
    laptop.run(NEWEST)
    (request,) = laptop.pages.requests
    assert request.headers["if-none-match"].startswith('W/"')
    (laptop.firmware / "wired/gnss_module/firmware.bin").unlink()
    assert laptop.run(NEWEST)["changed"], "the remembered answer is as good as a new one"


def test_an_answer_that_was_damaged_on_disk_is_asked_for_again(laptop: Laptop, tmp_path: pathlib.Path) -> None:
    """With its ETag intact, each later run would be told that there is nothing new."""
    laptop.run(NEWEST)
    (kept,) = (tmp_path / "cache/trailcurrent/releases").iterdir()
    content = kept.read_bytes()
    said = json.loads(content)
    for body in ("{}", said["body"].replace("v1.2.0", "v1.3.0"), "\ud800"):
        kept.write_text(json.dumps({**said, "body": body}))
        assert not laptop.run(NEWEST)["changed"]
        (request,) = laptop.pages.requests
        assert "if-none-match" not in request.headers
        assert kept.read_bytes() == content
    laptop.run(NEWEST)
    assert laptop.pages.requests[0].headers["if-none-match"].startswith('W/"')


def test_a_newer_release_replaces_the_older_one(laptop: Laptop) -> None:
    laptop.run(NEWEST)
    laptop.pages.publish(GNSS, "v1.3.0-rc1", {"firmware.bin": image("1.3.0")}, prerelease=True)
    assert not laptop.run(NEWEST)["changed"]
    laptop.pages.publish(GNSS, "v1.3.0", {"firmware.bin": image("1.3.0")})
    answer = laptop.run(NEWEST)
    assert answer["results"][0]["from_version"] == "v1.2.0"
    assert answer["diff"]["after"]["gnss_module"]["version"] == "v1.3.0"
    assert (laptop.firmware / "wired/gnss_module/firmware.bin").read_bytes() == image("1.3.0")


def test_check_mode_says_what_would_come_and_changes_nothing(laptop: Laptop, tmp_path: pathlib.Path) -> None:
    answer = laptop.run({**NEWEST, "shunt_gateway": {"repository": "owner/empty"}}, check=True)
    assert answer["changed"]
    assert answer["diff"]["before"] == {}
    assert answer["diff"]["after"]["gnss_module"]["files"] == {"gnss_module/firmware.bin": sha256(image("1.2.0"))}
    assert [row["status"] for row in answer["results"]] == ["updated", "no_release"]
    assert set(laptop.hosts()) == {"api"}
    assert not list(tmp_path.rglob("*.json")) and not laptop.firmware.exists()
    laptop.run(NEWEST)
    assert not laptop.run(NEWEST, check=True)["changed"]


def test_a_repository_without_a_release_is_said_and_does_not_fail(laptop: Laptop) -> None:
    answer = laptop.run({**NEWEST, "shunt_gateway": {"repository": "owner/empty"}})
    assert [(row["type"], row["status"]) for row in answer["results"]] == [
        ("gnss_module", "updated"),
        ("shunt_gateway", "no_release"),
    ]
    assert not laptop.run({"shunt_gateway": {"repository": "owner/empty"}})["changed"]


def test_a_pinned_set_is_fetched_again_elsewhere_and_held_against_the_record(laptop: Laptop) -> None:
    laptop.run(PINNED)
    laptop.run(PINNED)
    assert laptop.hosts() == [], "a pinned release that is here whole is asked of nobody"
    (laptop.firmware / "wired/gnss_module/firmware.bin").unlink()
    assert laptop.run(PINNED)["results"][0]["downloaded"] == ["gnss_module/firmware.bin"]


@pytest.mark.parametrize("digests", [True, False], ids=["announced", "not announced"])
def test_a_file_that_was_exchanged_under_the_same_version_is_refused(laptop: Laptop, digests: bool) -> None:
    laptop.run(NEWEST)
    laptop.pages.repositories[GNSS].releases.pop()
    laptop.pages.publish(GNSS, "v1.2.0", {"firmware.bin": image("1.2.0", seed=7)}, digests=digests)
    file = laptop.firmware / "wired/gnss_module/firmware.bin"
    if not digests:
        file.unlink()
    before = laptop.files()
    error = laptop.fail(NEWEST)
    assert (error.code, "was exchanged" in str(error)) == ("download_mismatch", True)
    assert laptop.files() == before


def test_a_release_without_digests_is_recorded_with_what_came(laptop: Laptop) -> None:
    laptop.pages.publish(GNSS, "v1.3.0", {"firmware.bin": image("1.3.0")}, digests=False)
    after = laptop.run(NEWEST, check=True)["diff"]["after"]
    assert after["gnss_module"]["files"] == {"gnss_module/firmware.bin": "known once it is downloaded"}
    assert laptop.run(NEWEST)["changed"]
    assert laptop.lock()["gnss_module"]["files"]["gnss_module/firmware.bin"]["sha256"] == sha256(image("1.3.0"))
    assert not laptop.run(NEWEST)["changed"]


def test_an_image_that_somebody_changed_is_put_right(laptop: Laptop) -> None:
    laptop.run(NEWEST)
    file = laptop.firmware / "wired/gnss_module/firmware.bin"
    file.write_bytes(image("9.9.9"))
    answer = laptop.run(NEWEST)
    assert (answer["changed"], file.read_bytes()) == (True, image("1.2.0"))


def test_an_image_that_the_new_release_does_not_have_goes_and_a_foreign_one_stays(laptop: Laptop) -> None:
    laptop.run(ADDRESSED)
    laptop.pages.publish(RELAY, "v2.1.0", {"relay-addr1-2.1.0.bin": image("2.1.0", seed=1)})
    own = laptop.firmware / "wired/switchback_relay/addr9/firmware.bin"
    own.parent.mkdir()
    own.write_bytes(image("0.0.1"))
    sources = {"switchback_relay": {"repository": RELAY, "assets": {1: "relay-addr1-{version}.bin"}}}
    assert laptop.run(sources)["results"][0]["removed"] == ["switchback_relay/addr2/firmware.bin"]
    assert sorted(path.name for path in own.parents[1].iterdir()) == ["addr1", "addr9"]


def test_the_images_of_a_type_come_all_or_none(laptop: Laptop) -> None:
    laptop.run(ADDRESSED)
    before = laptop.files()
    new = {"relay-addr1-2.1.0.bin": image("2.1.0"), "relay-addr2-2.1.0.bin": image("2.1.0", chip="esp32")}
    laptop.pages.publish(RELAY, "v2.1.0", new)
    error = laptop.fail({**ADDRESSED, **NEWEST})
    assert error.code == "wrong_chip"
    assert [row["status"] for row in error.details["results"]] == ["updated", "failed"]
    assert before.items() - {("firmware/firmware.lock.json", before["firmware/firmware.lock.json"])} <= set(
        laptop.files().items()
    )
    assert set(laptop.lock()) == {"switchback_relay", "gnss_module"}
    assert laptop.lock()["switchback_relay"]["version"] == "v2.0.0"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (image("1.3.0", chip="esp32"), "wrong_chip"),
        (image("1.3.0")[:-40], "image_truncated"),
        (b"\x7fELF" + bytes(400), "image_magic"),
        (image("1.3.0")[:-1] + b"\x00", "image_digest"),
    ],
)
def test_an_image_that_a_module_would_refuse_never_takes_its_place(laptop: Laptop, content: bytes, code: str) -> None:
    laptop.run(NEWEST)
    before = laptop.files()
    laptop.pages.publish(GNSS, "v1.3.0", {"firmware.bin": content})
    assert laptop.fail(NEWEST).code == code
    assert laptop.files() == before


def test_a_release_whose_image_says_another_version_is_warned_of(laptop: Laptop) -> None:
    laptop.pages.publish(GNSS, "v1.3.0", {"firmware.bin": image("1.2.9")})
    laptop.run(NEWEST)
    assert laptop.warnings == [
        f"The file firmware.bin of {GNSS} v1.3.0 says that it is version 1.2.9; its modules will report that."
    ]


@pytest.mark.parametrize(
    ("sources", "code", "words"),
    [
        ({"gnss_module": {"repository": GNSS, "assets": "gnss.bin"}}, "asset_missing", "but firmware.bin, gnss-1"),
        ({"gnss_module": {"repository": GNSS, "version": "v7"}}, "invalid_option", "the newest are: v1.2.0, v1.1.0"),
        ({"gnss_module": {"repository": "owner/nothing"}}, "invalid_option", "knows no repository owner/nothing"),
        ({"GNSS": {"repository": GNSS}}, "invalid_type", "snake_case"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_table_is_named(laptop: Laptop, sources: dict, code: str, words: str) -> None:
    error = laptop.fail(sources)
    assert (error.code, words in str(error)) == (code, True), str(error)
    assert not laptop.firmware.exists()


# what hosts and networks do


def test_a_link_that_stumbles_is_tried_again(laptop: Laptop) -> None:
    laptop.pages.faults = Faults(failures=2)
    assert laptop.run(NEWEST)["changed"]
    laptop.pages.publish(GNSS, "v1.3.0", {"firmware.bin": image("1.3.0")})
    laptop.pages.faults = Faults(truncations=2)
    assert laptop.run(NEWEST)["changed"]
    assert laptop.hosts().count("storage") == 3


@pytest.mark.parametrize(
    ("faults", "code", "words"),
    [
        (Faults(failures=99), "release_unreachable", "it answered 503"),
        (Faults(truncations=99), "download_mismatch", f"got {SIZE // 2:,} of the {SIZE:,} bytes"),
        (Faults(corrupt=True), "download_mismatch", "and the release page announces"),
        (Faults(longer=True), "download_mismatch", f"more than the {SIZE:,} bytes"),
        (Faults(exhausted=4_000_000_000), "release_refused", "often enough for now (again at 2096-10-0"),
        (Faults(secondary=90), "release_refused", "(again in 90 s)"),
        (Faults(gone=True), "asset_missing", "which is not at"),
        (Faults(endless=True), "release_unreachable", "more than 4,194,304 bytes"),
        (Faults(portal=True), "release_unreachable", "which is no JSON"),
        (Faults(redirect="https://127.28.0.1:1/x"), "release_unreachable", "cannot be reached (Connection refused)"),
        (Faults(redirect="file:///etc/hostname"), "release_refused", "no web address"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_a_host_does_wrong_is_one_sentence_and_changes_nothing(
    laptop: Laptop, faults: Faults, code: str, words: str
) -> None:
    laptop.run(PINNED)
    before = laptop.files()
    laptop.pages.faults = faults
    error = laptop.fail(NEWEST)
    assert (error.code, words in str(error)) == (code, True), str(error)
    assert laptop.files() == before
    assert str(error).startswith("gnss_module: ")


def test_a_host_that_says_nothing_is_given_up(laptop: Laptop) -> None:
    laptop.pages.faults = Faults(silence=2.0)
    began = time.monotonic()
    assert "no answer came within 0.2 s" in str(laptop.fail(NEWEST, timeout=0.2))
    assert time.monotonic() - began < 2.0


def test_one_type_that_fails_does_not_keep_the_others_from_theirs(laptop: Laptop) -> None:
    error = laptop.fail({**NEWEST, "air_quality_module": {"repository": "owner/nothing"}})
    assert error.code == "invalid_option"
    assert [row["status"] for row in error.details["results"]] == ["failed", "updated"]
    assert (laptop.firmware / "wired/gnss_module/firmware.bin").exists()
    assert list(laptop.lock()) == ["gnss_module"]


def test_several_downloads_are_under_way_at_once_and_no_more_than_a_host_bears(laptop: Laptop) -> None:
    laptop.pages.faults = Faults(silence=0.2)
    laptop.pages.publish("owner/many", "v1.0.0", {f"{n}.bin": image("1.0.0", seed=n) for n in range(8)})
    laptop.run({"switchback_relay": {"repository": "owner/many", "assets": {n: f"{n}.bin" for n in range(8)}}})
    assert laptop.pages.peak == PARALLEL


def test_a_fetch_that_is_killed_leaves_old_images_whole_and_the_next_one_goes_on(laptop: Laptop) -> None:
    laptop.run(PINNED)
    before = laptop.files()
    laptop.pages.faults = Faults(silence=0.3)
    arguments = {"path": str(laptop.firmware), "api_url": laptop.pages.api_url, "sources": {**NEWEST, **ADDRESSED}}
    command = [sys.executable, "-m", "ansible_collections.trailcurrent.fleet.plugins.modules.firmware_fetch"]
    run = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert run.stdin
    run.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
    run.stdin.close()
    while "storage" not in laptop.hosts():
        assert run.poll() is None
        time.sleep(0.01)
    run.kill()
    run.wait()
    assert laptop.files() == before
    laptop.pages.faults = Faults()
    assert laptop.run({**NEWEST, **ADDRESSED})["changed"]


# only https


@pytest.fixture
def secure(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> collections.abc.Iterator[str]:
    """A page over https, trusted by way of SSL_CERT_FILE, which sends on to plain http."""
    authority = make_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate, authority.key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SendsOn)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with served(server):
        yield f"https://127.0.0.1:{server.server_port}"


def test_plain_http_is_refused_where_https_was_asked(laptop: Laptop, secure: str) -> None:
    SendsOn.place = f"{laptop.pages.api_url}/repos/{GNSS}/releases/latest"
    error = laptop.fail(NEWEST, api_url=secure, token="good-token")
    assert (error.code, "which is not https" in str(error)) == ("release_refused", True), str(error)
    assert laptop.hosts() == []
    assert laptop.warnings == []


def test_a_page_that_sends_in_a_circle_is_given_up(laptop: Laptop, secure: str) -> None:
    SendsOn.place = f"{secure}/again"
    assert "in a circle" in str(laptop.fail(NEWEST, api_url=secure))


def test_a_certificate_that_nobody_vouches_for_is_not_taken(
    laptop: Laptop, secure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "CERTIFICATE_VERIFY_FAILED" in str(laptop.fail(NEWEST, api_url=secure))


# who gets to see the token


def test_the_token_is_seen_by_the_api_alone(laptop: Laptop) -> None:
    laptop.pages.repositories[GNSS].private = True
    assert "is private, and needs `firmware_token`" in str(laptop.fail(NEWEST))
    assert laptop.run(NEWEST, token="good-token")["changed"]
    assert {request.host for request in laptop.pages.requests if "authorization" in request.headers} == {"api"}
    assert laptop.hosts()[-1] == "storage"
    assert laptop.warnings == ["The token goes to `api_url` over http, where everybody on the way can read it."]
    assert "good-token" not in json.dumps(laptop.lock())


def test_a_token_that_is_not_good_is_said(laptop: Laptop) -> None:
    error = laptop.fail(NEWEST, token="old")
    assert (error.code, "does not take the token" in str(error)) == ("release_refused", True)
    assert "old" not in error.details.values()


# mirrors and proxies


def test_a_mirror_of_the_files_is_used_in_place_of_the_web_host(laptop: Laptop) -> None:
    mirror = f"{laptop.pages.url('web')}/"
    laptop.run(NEWEST, download_url=mirror, token="good-token")
    assert laptop.hosts() == ["api", "web", "storage"]
    assert laptop.lock()["gnss_module"]["files"]["gnss_module/firmware.bin"]["url"].startswith(mirror)


class Proxy(http.server.BaseHTTPRequestHandler):
    """Answers for every host, and remembers what was asked of it."""

    asked: t.ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(502)

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def proxy() -> collections.abc.Iterator[str]:
    Proxy.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.28.0.4", 0), Proxy)
    with served(server):
        yield f"http://127.28.0.4:{server.server_port}"


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_proxy_is_gone_through(laptop: Laptop, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy() as url:
        if by == "environment":
            monkeypatch.setenv("http_proxy", url)
        error = laptop.fail(NEWEST, **({"proxy": url} if by == "option" else {}))
    assert "it answered 502" in str(error)
    assert Proxy.asked == [f"{laptop.pages.api_url}/repos/{GNSS}/releases/latest"] * web.ATTEMPTS
    assert laptop.hosts() == []


# as a user runs it


class Played(t.NamedTuple):
    status: int
    output: str


def play(laptop: Laptop, *arguments: str, **variables: t.Any) -> Played:
    inventory = laptop.folder / "inventory/group_vars"
    inventory.mkdir(parents=True, exist_ok=True)
    (inventory.parent / "hosts.yml").write_text(yaml.safe_dump({"rvs": {"hosts": {"rv1": {}}}}))
    said = {"fleet_firmware_dir": str(laptop.firmware), "firmware_api_url": laptop.pages.api_url, **variables}
    (inventory / "all.yml").write_text(yaml.safe_dump({"ansible_become": True, **said}))
    command = [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), "trailcurrent.fleet.fetch_firmware"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE")}
    done = subprocess.run(
        [*command, "-i", str(inventory.parent), *arguments],
        cwd=laptop.folder,
        env={**kept, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Played(done.returncode, done.stdout)


def test_the_playbook_fetches_shows_and_changes_nothing_the_second_time(laptop: Laptop) -> None:
    sources = {**NEWEST, **ADDRESSED, "shunt_gateway": {"repository": "owner/empty"}}
    looked = play(laptop, "--check", "--diff", firmware_sources=sources)
    assert (looked.status, "gnss_module: v1.2.0, to be fetched" in looked.output) == (0, True), looked.output
    first = play(laptop, "-v", firmware_sources=sources, firmware_token="good-token")
    assert (first.status, "changed=1" in first.output) == (0, True), first.output
    assert "gnss_module: v1.2.0, fetched (before: none)" in first.output
    assert "shunt_gateway: owner/empty has no release" in first.output
    assert "good-token" not in first.output
    second = play(laptop, firmware_sources=sources)
    assert (second.status, "changed=0" in second.output) == (0, True), second.output
    assert "switchback_relay: v2.0.0, was here already" in second.output


def test_the_playbook_that_fails_shows_what_came_all_the_same(laptop: Laptop) -> None:
    sources = {**NEWEST, "air_quality_module": {"repository": "owner/nothing"}}
    played = play(laptop, firmware_sources=sources)
    assert played.status == 2
    assert "air_quality_module: failed, nothing stays (invalid_option)" in played.output
    assert "gnss_module: v1.2.0, fetched" in played.output
    assert "fleet_firmware_dir=<folder>" in play(laptop, fleet_firmware_dir="").output
