"""The release pages answer as GitHub's hosts do: seen by a client that shares no code with the collection's."""

from __future__ import annotations

import collections.abc
import hashlib
import http.client
import json
import typing as t
import urllib.parse

import pytest

from virtual_rv.release_page import Faults, ReleasePages, Repository

NAME, FILE = "owner/gnss", b"firmware" * 100
LATEST = f"/repos/{NAME}/releases/latest"
TOKEN = {"Authorization": "Bearer good-token"}


class Answer(t.NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> t.Any:
        return json.loads(self.body)


def get(url: str, **headers: str) -> Answer:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    connection.request("GET", url.partition(parts.netloc)[2], headers={"User-Agent": "test", **headers})
    response = connection.getresponse()
    try:
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


@pytest.fixture
def pages() -> collections.abc.Iterator[ReleasePages]:
    with ReleasePages() as pages:
        pages.publish(NAME, "v1.0.0", {"firmware.bin": FILE})
        pages.publish(NAME, "v1.1.0-rc1", {"firmware.bin": FILE}, prerelease=True)
        pages.publish(NAME, "v1.1.0", {"firmware.bin": FILE}, draft=True)
        pages.repositories["owner/empty"] = Repository()
        yield pages


def test_latest_is_neither_draft_nor_prerelease_and_a_tag_finds_both_but_the_draft(pages: ReleasePages) -> None:
    assert get(pages.api_url + LATEST).json["tag_name"] == "v1.0.0"
    tags = f"{pages.api_url}/repos/{NAME}/releases/tags"
    assert [get(f"{tags}/{tag}").status for tag in ("v1.0.0", "v1.1.0-rc1", "v1.1.0", "v9")] == [200, 200, 404, 404]
    listed = get(f"{pages.api_url}/repos/{NAME}/releases").json
    assert [entry["tag_name"] for entry in listed] == ["v1.1.0-rc1", "v1.0.0"]


def test_a_repository_without_releases_is_there_and_another_is_not(pages: ReleasePages) -> None:
    empty, nothing = (f"{pages.api_url}/repos/owner/{name}/releases" for name in ("empty", "nothing"))
    assert (get(f"{empty}/latest").status, get(empty).json) == (404, [])
    assert (get(f"{nothing}/latest").status, get(nothing).status) == (404, 404)


def test_a_file_is_announced_and_downloaded_by_way_of_another_host(pages: ReleasePages) -> None:
    (asset,) = get(pages.api_url + LATEST).json["assets"]
    assert (asset["size"], asset["digest"]) == (len(FILE), f"sha256:{hashlib.sha256(FILE).hexdigest()}")
    sent_on = get(asset["browser_download_url"])
    assert (sent_on.status, sent_on.headers["Location"].startswith(pages.url("storage"))) == (302, True)
    assert get(sent_on.headers["Location"]).body == FILE
    assert get(sent_on.headers["Location"], **TOKEN).status == 400, "the storage takes one way to prove oneself"
    assert get(asset["url"]).json["name"] == "firmware.bin"
    by_api = get(asset["url"], Accept="application/octet-stream")
    assert (by_api.status, by_api.headers["Location"]) == (302, sent_on.headers["Location"])


def test_a_private_repository_is_there_for_who_has_a_token_alone(pages: ReleasePages) -> None:
    pages.repositories[NAME].private = True
    assert (get(pages.api_url + LATEST).status, get(pages.api_url + LATEST, **TOKEN).status) == (404, 200)
    (asset,) = get(pages.api_url + LATEST, **TOKEN).json["assets"]
    assert get(asset["browser_download_url"], **TOKEN).status == 404
    assert get(pages.api_url + LATEST, Authorization="Bearer other").status == 401


def test_what_is_still_right_is_not_sent_again_and_costs_who_has_a_token_nothing(pages: ReleasePages) -> None:
    def left(**headers: str) -> tuple[int, int]:
        answer = get(pages.api_url + LATEST, **headers)
        return answer.status, int(answer.headers["X-RateLimit-Remaining"])

    etag = {"If-None-Match": get(pages.api_url + LATEST).headers["ETag"]}
    assert (left(**etag), left(**etag)) == ((304, 58), (304, 57))
    assert (left(**TOKEN), left(**etag, **TOKEN), left(**etag, **TOKEN)) == ((200, 4999), (304, 4999), (304, 4999))


def test_who_asks_too_often_is_told_when_to_come_again(pages: ReleasePages) -> None:
    for _request in range(60):
        get(pages.api_url + LATEST)
    refused = get(pages.api_url + LATEST)
    assert (refused.status, refused.headers["X-RateLimit-Remaining"]) == (403, "0")
    assert int(refused.headers["X-RateLimit-Reset"]) > 0
    assert get(pages.api_url + LATEST, **TOKEN).status == 200


def test_who_names_no_agent_is_refused(pages: ReleasePages) -> None:
    assert get(pages.api_url + LATEST, **{"User-Agent": ""}).status == 403


def test_faults_do_what_they_say(pages: ReleasePages) -> None:
    place = get(get(pages.api_url + LATEST).json["assets"][0]["browser_download_url"]).headers["Location"]
    pages.faults = Faults(failures=1, truncations=1)
    assert get(place).status == 503
    with pytest.raises(http.client.IncompleteRead):
        get(place)
    pages.faults = Faults(corrupt=True)
    assert sum(one != other for one, other in zip(get(place).body, FILE, strict=True)) == 1
