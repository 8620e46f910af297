"""Calls of MLflow's webhook: signed by MLflow's own code, and everything that is not."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from mlflow.webhooks.delivery import _generate_hmac_signature

from serve_apps.webhook import PATH, TOLERANCE_S, Verifier, webhook_app

SECRET = "shared"
BODY = '{"entity": "model_version_alias", "action": "created", "data": {"alias": "champion"}}'


def signed(delivery: str = "one", stamp: float | None = None, secret: str = SECRET, body: str = BODY) -> dict[str, str]:
    """Headers as MLflow 3 sends them."""
    when = str(int(time.time() if stamp is None else stamp))
    return {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": when,
        "X-MLflow-Signature": _generate_hmac_signature(secret, delivery, when, body),
    }


@pytest.fixture
def heard() -> list[int]:
    return []


@pytest.fixture
def client(heard: list[int]) -> TestClient:
    return TestClient(webhook_app(Verifier(SECRET), lambda: heard.append(1), lambda: {"desired": "models:/toy/2"}))


def test_a_signed_fresh_new_call_is_heard_once(client: TestClient, heard: list[int]) -> None:
    assert client.post(PATH, content=BODY, headers=signed()).status_code == 202
    assert client.post(PATH, content=BODY, headers=signed()).status_code == 409
    assert client.post(PATH, content=BODY, headers=signed("two")).status_code == 202
    assert len(heard) == 2
    assert client.get("/status").json() == {"desired": "models:/toy/2"}


CASES: dict[str, tuple[Callable[[], dict[str, str]], str, int]] = {
    "unsigned": (dict, BODY, 401),
    "another secret": (lambda: signed(secret="guessed"), BODY, 401),
    "another body": (signed, BODY.replace("champion", "previous"), 401),
    "another delivery": (lambda: signed() | {"X-MLflow-Delivery-Id": "other"}, BODY, 401),
    "another time": (lambda: signed() | {"X-MLflow-Timestamp": "1"}, BODY, 401),
    "another version of the scheme": (
        lambda: signed() | {"X-MLflow-Signature": signed()["X-MLflow-Signature"].replace("v1", "v0")},
        BODY,
        401,
    ),
    "not ASCII": (lambda: signed() | {"X-MLflow-Signature": "v1,\xe4"}, BODY, 401),
    "stale": (lambda: signed(stamp=time.time() - TOLERANCE_S - 5), BODY, 400),
    "from the future": (lambda: signed(stamp=time.time() + TOLERANCE_S + 5), BODY, 400),
    "endless": (signed, "x" * 100_000, 413),
}


@pytest.mark.parametrize("case", CASES)
def test_everything_else_is_refused(case: str, client: TestClient, heard: list[int]) -> None:
    headers, body, status = CASES[case]
    raw = {name: value.encode("latin-1") for name, value in headers().items()}
    assert client.post(PATH, content=body, headers=raw).status_code == status
    assert heard == []
    assert client.post(PATH, content=BODY, headers=signed("after")).status_code == 202


def test_deliveries_are_forgotten_only_when_they_are_stale() -> None:
    now = [1000.0]
    verifier = Verifier(SECRET, lambda: now[0])
    headers = signed(stamp=1000)
    verifier.check(headers, BODY.encode())
    for passed, status in ((TOLERANCE_S - 1, 409), (TOLERANCE_S + 1, 400), (3 * TOLERANCE_S, 400)):
        now[0] = 1000 + passed
        with pytest.raises(Exception, match=r"before|ago") as refused:
            verifier.check(headers, BODY.encode())
        assert refused.value.status == status  # type: ignore[attr-defined]


def test_no_secret_is_no_webhook() -> None:
    with pytest.raises(ValueError, match="without a secret"):
        Verifier("")
