"""Bad requests over real HTTP: each gets its status and a reason, and leaves the service as it was."""

from __future__ import annotations

import json
import socket

import pytest
import requests
from bad_requests import BAD, TIFF, ask, check
from serving import PORT, memory_mb, read

DEPLOYMENTS = ("Gateway", "SceneWorker", "CoarseSegmenter", "DiffusionRefiner")


@pytest.fixture
def url(open_service: str) -> str:
    return open_service


@pytest.mark.parametrize("case", BAD)
def test_the_problem_is_named(url: str, case: str) -> None:
    check(url, BAD[case])


def head(length: str) -> bytes:
    lines = ["POST /v1/refine HTTP/1.1", "host: x", length]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_body_of_unknown_length_that_never_ends(url: str) -> None:
    answer = requests.post(f"{url}/v1/refine", (b"0" * 100_000 for _ in range(200)), timeout=300)
    assert answer.status_code == 413 and "MB" in answer.json()["detail"]


def test_a_body_that_does_not_come(url: str) -> None:
    with socket.create_connection(("127.0.0.1", PORT), timeout=300) as line:
        line.sendall(head("content-length: 5000") + TIFF[:1000])
        answer = b""
        while b"request_id" not in answer:
            part = line.recv(65536)
            assert part, answer
            answer += part
    assert answer.startswith(b"HTTP/1.1 408") and b"did not arrive" in answer


def leave(sent: bytes) -> None:
    """A client that goes before its answer comes."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=300) as line:
        line.sendall(sent)


def works(url: str) -> None:
    answer = requests.post(f"{url}/v1/refine", TIFF, timeout=300)
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
    model = requests.get(f"{url}/v1/model", timeout=60).json()
    assert model["active"] and not model["errors"], json.dumps(model)
