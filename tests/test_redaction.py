"""What counts as a secret, and what must not."""

from __future__ import annotations

import pytest

from idgbr.redaction import redacted


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("postgresql://mlflow:hunter22@db:5432/mlflow", "postgresql://mlflow:***@db:5432/mlflow"),
        ("see http://:hunter22@mlflow:5000 and go", "see http://:***@mlflow:5000 and go"),
        ("https://b.s3.org/a.tif?X-Amz-Signature=hunter22&n=1", "https://b.s3.org/a.tif?X-Amz-Signature=***&n=1"),
        ("https://blob/a.tif?sv=1&sig=hunter22", "https://blob/a.tif?sv=1&sig=***"),
        ("'/vsicurl/https://h/a.tif?token=hunter22'", "'/vsicurl/https://h/a.tif?token=***'"),
    ],
)
def test_addresses_lose_their_secrets(text: str, kept: str) -> None:
    assert redacted(text) == kept


@pytest.mark.parametrize(
    "text", ["http://mlflow:5000/a@b", "s3://bucket/key.tif", "sqlite:////data/mlflow.db", "a: b@c", "?design=1&n=2"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_values_of_secret_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "POSTGRES_PASSWORD", "SOME_API_KEY"):
        monkeypatch.setenv(name, f"{name} holds this")
        assert redacted(f"<{name} holds this>") == "<***>"
    for name in ("RAY_AUTH_TOKEN_PATH", "KEYBOARD", "TOKENISER"):
        monkeypatch.setenv(name, f"{name} holds this")
        assert redacted(f"<{name} holds this>") == f"<{name} holds this>"
    monkeypatch.setenv("SHORT_TOKEN", "true")
    assert redacted("true") == "true"
