"""Bad requests over real HTTP: each gets its status and a reason, and leaves the service as it was."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from bad_requests import BAD, LIMITS, TIFF, Bad
from serving import PORT, memory_mb, read, service

from serve_apps.access import new_key

KEY, LINE = new_key("tester")
DEPLOYMENTS = ("Gateway", "SceneWorker", "CoarseSegmenter", "DiffusionRefiner")


@pytest.fixture(scope="module")
def url(ray_session: None, toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(LINE)
    with service(toy_model, limits=LIMITS, access={"keys_file": str(keys)}) as address:
        yield address


def ask(url: str, bad: Bad) -> requests.Response:
    more = {"data": bad.body or None, **bad.more}
    headers = more.pop("headers", {})
    if not {"authorization", "x-api-key"} & set(headers):
        headers = {"authorization": f"Bearer {KEY}", **headers}
    return requests.request(bad.method, url + bad.path, headers=headers, timeout=300, **more)


@pytest.mark.parametrize("case", BAD)
def test_told_what_is_wrong(url: str, case: str) -> None:
    bad = BAD[case]
    answer = ask(url, bad)
    assert answer.status_code == bad.status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == bad.status and bad.says in problem["detail"] and problem["request_id"]
    assert "Traceback" not in answer.text and "/vsimem/" not in answer.text


def head(length: str) -> bytes:
    lines = ["POST /v1/refine HTTP/1.1", "host: x", f"authorization: Bearer {KEY}", length]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_body_of_unknown_length_that_never_ends(url: str) -> None:
    answer = requests.post(
        f"{url}/v1/refine",
        (b"0" * 100_000 for _ in range(200)),
        headers={"authorization": f"Bearer {KEY}"},
        timeout=300,
    )
    assert answer.status_code == 413 and "MB" in answer.json()["detail"]


def test_a_body_that_does_not_come(url: str) -> None:
    with socket.create_connection(("127.0.0.1", PORT), timeout=300) as line:
        line.sendall(head("content-length: 5000") + TIFF[:1000])
        told = b""
        while b"request_id" not in told:
            part = line.recv(65536)
            assert part, told
            told += part
    assert told.startswith(b"HTTP/1.1 408") and b"did not arrive" in told


def leave(sent: bytes) -> None:
    """A client that goes before its answer comes."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=300) as line:
        line.sendall(sent)


def works(url: str) -> None:
    answer = requests.post(f"{url}/v1/refine", TIFF, headers={"authorization": f"Bearer {KEY}"}, timeout=300)
    assert answer.status_code == 200, answer.text
    assert read(answer.content)[0].shape == (64, 64)


def test_memory_is_back_after_rounds_of_all_of_them(url: str) -> None:
    def one_round() -> float:
        for bad in BAD.values():
            assert ask(url, bad).status_code == bad.status
        for _ in range(5):
            leave(head("content-length: 5000") + TIFF[:1000])
            leave(head(f"content-length: {len(TIFF)}") + TIFF)
        works(url)
        return memory_mb(DEPLOYMENTS)

    # Libraries, caches and arenas fill up in the first rounds.
    warm = [one_round() for _ in range(3)][-1]
    rounds = [one_round() for _ in range(3)]
    assert rounds[-1] < warm + 40, (warm, rounds)
    told = requests.get(f"{url}/v1/model", headers={"authorization": f"Bearer {KEY}"}, timeout=60).json()
    assert told["active"] and not told["errors"], json.dumps(told)
