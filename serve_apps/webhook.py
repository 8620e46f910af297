"""MLflow's webhook as a hint that an alias moved: who sent it, when, and whether it was sent before.

MLflow signs `DELIVERY.TIMESTAMP.BODY` with HMAC-SHA256 under a shared secret. The body is not trusted: the
alias is always read again, so that a forged or repeated call would cost one look at most, and is refused besides.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping

from fastapi import FastAPI, Request, Response
from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent
from mlflow.webhooks.constants import (
    WEBHOOK_DELIVERY_ID_HEADER,
    WEBHOOK_SIGNATURE_HEADER,
    WEBHOOK_SIGNATURE_VERSION,
    WEBHOOK_TIMESTAMP_HEADER,
)

PATH = "/mlflow"
TOLERANCE_S = 300.0
"""How old a call may be; deliveries are remembered for as long."""
_MAX_BODY_BYTES = 64 * 1024
_ALIAS_MOVED = WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED)


class RejectedCall(Exception):
    """A call that is not MLflow's, or not a new one."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Verifier:
    """Accepts calls with a valid signature that are recent and were not received before.

    Args:
        secret: shared with MLflow.
        clock: seconds since the epoch.
    """

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        if not secret:
            raise ValueError("a webhook without a secret could be called by anybody")
        self._secret, self._clock = secret.encode(), clock
        self._seen: dict[str, float] = {}

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Passes, or raises.

        Args:
            headers: of the call; a mapping that ignores case.
            body: of the call, byte for byte.

        Raises:
            RejectedCall: 401 unsigned or wrongly signed, 400 stale or from the future, 409 seen before.
        """
        delivery, stamp = headers.get(WEBHOOK_DELIVERY_ID_HEADER, ""), headers.get(WEBHOOK_TIMESTAMP_HEADER, "")
        signature = headers.get(WEBHOOK_SIGNATURE_HEADER, "")
        signed = f"{delivery}.{stamp}.".encode() + body
        digest = hmac.new(self._secret, signed, hashlib.sha256).digest()
        expected = f"{WEBHOOK_SIGNATURE_VERSION},{base64.b64encode(digest).decode()}"
        if not delivery or not hmac.compare_digest(expected.encode(), signature.encode()):
            raise RejectedCall(401, "the signature is missing or wrong")
        now = self._clock()
        # Signed, so it is a number.
        if abs(now - float(stamp)) > TOLERANCE_S:
            raise RejectedCall(400, f"sent {now - float(stamp):.0f} s ago; at most {TOLERANCE_S:.0f} s are accepted")
        self._seen = {key: when for key, when in self._seen.items() if now - when <= 2 * TOLERANCE_S}
        if delivery in self._seen:
            raise RejectedCall(409, "this delivery was received before")
        self._seen[delivery] = now


def webhook_app(verifier: Verifier, notify: Callable[[], None], state: Callable[[], Mapping[str, object]]) -> FastAPI:
    """The reconciler's own service: the webhook, and its state at /status.

    Args:
        verifier: of calls.
        notify: called after each that passed.
        state: content of /status.
    """
    app = FastAPI(title="Reconciler of the endpoint with the registry", docs_url=None, redoc_url=None)

    @app.post(PATH)
    async def moved(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MAX_BODY_BYTES:
                return Response("too long", 413)
        try:
            verifier.check(request.headers, body)
        except RejectedCall as error:
            return Response(str(error), error.status)
        notify()
        return Response(status_code=202)

    @app.get("/status")
    async def status() -> Mapping[str, object]:
        return state()

    return app


def ensure_webhook(client: MlflowClient, name: str, url: str, secret: str) -> None:
    """Registers the webhook with an MLflow server, unless it is there.

    Args:
        client: of the server; a database as store delivers no webhooks.
        name: of the webhook.
        url: where the reconciler listens, as the server reaches it.
        secret: shared with the reconciler.
    """
    known = {hook.name: hook for hook in client.list_webhooks()}
    if name in known:
        client.update_webhook(known[name].webhook_id, url=url, events=[_ALIAS_MOVED], secret=secret, status="ACTIVE")
    else:
        client.create_webhook(name, url, [_ALIAS_MOVED], description="The endpoint follows @champion", secret=secret)
