"""Keys, addresses and types: who is let in, and what they get."""

from __future__ import annotations

from pathlib import Path

import pytest

from idgbr.errors import UserError
from serve_apps.access import VARIABLE, Keys, check_bind, new_key
from serve_apps.messages import MAP_TYPES
from serve_apps.negotiation import negotiated
from serve_apps.problems import ProblemError
from serve_apps.settings import AccessArgs


def test_keys_of_a_file_and_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine, line), (theirs, other) = new_key("me"), new_key("them")
    (tmp_path / "keys.txt").write_text(f"# comment\n{line}\n")
    monkeypatch.setenv(VARIABLE, other)
    keys = Keys.read(AccessArgs(keys_file=str(tmp_path / "keys.txt")))
    assert (keys.caller(mine), keys.caller(theirs), keys.caller(""), keys.caller(line)) == ("me", "them", None, None)
    assert mine not in line
    (tmp_path / "keys.txt").write_text(mine)
    with pytest.raises(UserError, match="name:sha256"):
        Keys.read(AccessArgs(keys_file=str(tmp_path / "keys.txt")))


def test_a_reachable_address_wants_keys() -> None:
    none, some = Keys({}), Keys({"me": "0" * 64})
    for host in ("127.0.0.1", "localhost", "::1", None):
        check_bind(host, none, AccessArgs())
    check_bind("0.0.0.0", some, AccessArgs())
    check_bind("0.0.0.0", none, AccessArgs(open_to_network=True))
    for host in ("0.0.0.0", "::", "10.1.2.3", "map.example.org"):
        with pytest.raises(UserError, match="API keys"):
            check_bind(host, none, AccessArgs())


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("*/*", "image/tiff"),
        ("", "image/tiff"),
        ("image/*", "image/tiff"),
        ("image/png", "image/png"),
        ("text/html, image/png;q=0.5, application/geo+json;q=0.9", "application/geo+json"),
        ("application/json", "application/geo+json"),
        ("multipart/mixed", "multipart/mixed"),
    ],
)
def test_the_type_a_client_likes_best(accept: str, media: str) -> None:
    assert negotiated(accept, MAP_TYPES) == media


def test_no_type_it_likes() -> None:
    with pytest.raises(ProblemError) as caught:
        negotiated("text/html, image/png;q=0", MAP_TYPES)
    assert caught.value.problem.status == 406
