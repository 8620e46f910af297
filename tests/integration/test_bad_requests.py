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
    lines = ["POST /v1/refine HTTP/1.1", f"host: 127.0.0.1:{PORT}", length]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_body_of_unknown_length_that_never_ends(url: str) -> None:
    answer = requests.post(f"{url}/v1/refine", (b"0" * 100_000 for _ in range(200)), timeout=300)
    assert answer.status_code == 413 and "MB" in answer.json()["detail"]


def test_a_body_that_does_not_come(url: str) -> None:
    with socket.create_connection(("127.0.0.1", PORT), timeout=300) as line:
        line.sendall(head("content-length: 5000") + TIFF[:1000])
        answer = received(line, b"request_id")
    assert answer.startswith(b"HTTP/1.1 408") and b"did not arrive" in answer


def received(line: socket.socket, last: bytes) -> bytes:
    """An answer up to some last bytes, or to the end of the connection."""
    answer = b""
    while last not in answer and (part := line.recv(65536)):
        answer += part
    return answer


@pytest.mark.parametrize("case", ["one long header", "many headers", "a header that never ends"])
def test_headers_that_are_too_long(url: str, case: str) -> None:
    begin = f"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:{PORT}\r\n".encode()
    headers = {
        "one long header": b"x: " + b"a" * 40_000 + b"\r\n\r\n",
        "many headers": b"".join(b"x%d: aaaaaaaaaaaaaaaa\r\n" % i for i in range(2000)) + b"\r\n",
        "a header that never ends": b"x: " + b"a" * 40_000,
    }
    with socket.create_connection(("127.0.0.1", PORT), timeout=300) as line:
        line.sendall(begin + headers[case])
        answer = received(line, b"request_id")
    assert answer.startswith(b"HTTP/1.1 431") and b"headers" in answer
    assert requests.get(f"{url}/healthz", headers={"x-long": "a" * 8000}, timeout=60).ok


def test_headers_that_do_not_come(url: str) -> None:
    with socket.create_connection(("127.0.0.1", PORT), timeout=300) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nhost: ")
        answer = received(line, b"request_id")
    assert answer.startswith(b"HTTP/1.1 408")


def test_methods_and_ids(url: str) -> None:
    wrong = requests.get(f"{url}/v1/refine", timeout=60)
    assert wrong.headers["allow"] == "POST"
    assert requests.post(f"{url}/v1/model", timeout=60).headers["allow"] == "GET, HEAD"
    for path in ("/", "/healthz", "/readyz", "/v1/model", "/v1/sample", "/page/app.js", "/openapi.json"):
        head = requests.head(f"{url}{path}", timeout=60)
        assert (head.status_code, head.content) == (200, b""), path
    for sent, same in (("my-id_1", True), ("x" * 65, False), ("a b", False), ("", False)):
        answer = requests.get(f"{url}/v1/refine", headers={"x-request-id": sent}, timeout=60)
        assert answer.status_code == 405 and answer.json()["request_id"] == answer.headers["x-request-id"]
        assert (answer.headers["x-request-id"] == sent) is same


@pytest.mark.parametrize("path", ["/", "/page/index.html", "/page/app.js", "/page/style.css", "/page/icon.svg"])
def test_the_page_and_its_files_have_security_headers(url: str, path: str) -> None:
    headers = requests.get(f"{url}{path}", timeout=60).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


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
