"""A lock that serialises changes of a model's aliases; MLflow has no compare-and-swap.

The kind of lock depends on the store. SQLite: a lock file next to the database. PostgreSQL: an advisory lock in a
separate session. Both are released when the process that holds them ends. An MLflow server offers neither, but it
creates registered models atomically: a registered model `NAME.promotion` is the lock, created to acquire it and deleted
to release it. There, a process that died cannot be distinguished from a slow one: its lock remains, and the error
message names the holder and how to remove the lock.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from sqlalchemy.exc import DBAPIError

from idgbr.errors import UserError
from idgbr.registry.store import absolute_uri, connect

WAIT = 60.0
"""Seconds to wait for another promotion; the work under the lock takes a few seconds."""
_PAUSE = 0.5


@contextmanager
def promotion_lock(uri: str, name: str, wait: float = WAIT) -> Iterator[None]:
    """Holds the lock on the aliases of a registered model.

    Args:
        uri: the store.
        name: the registered model.
        wait: seconds to wait while another process holds the lock.

    Raises:
        UserError: another process still holds the lock after `wait`, or there is no lock for this kind of store.
    """
    uri = absolute_uri(uri)
    kind = uri.partition("://")[0].partition("+")[0]
    if kind == "sqlite":
        with _file(Path(uri.removeprefix("sqlite:///")), name, wait):
            yield
    elif kind in ("postgresql", "postgres"):
        with _advisory(uri, name, wait):
            yield
    elif kind in ("http", "https"):
        with _by_name(connect(uri), name, wait):
            yield
    else:
        raise UserError(
            f"tracking.uri: promotions are not safe on {kind}://, no lock is known for it; expected an MLflow server "
            "(http://, https://), postgresql:// or sqlite:///"
        )


@contextmanager
def _file(database: Path, name: str, wait: float) -> Iterator[None]:
    path = database.with_name(f"{database.name}.{re.sub(r'[^A-Za-z0-9.-]', '_', name)}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise UserError(f"{name}: another promotion still holds {path} after {wait:g} s; try again later") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _advisory(uri: str, name: str, wait: float) -> Iterator[None]:
    # 63 bits of the name: the server knows advisory locks by number.
    key = int.from_bytes(hashlib.sha256(f"idgbr promotion {name}".encode()).digest()[:8], "big") >> 1
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
        session.execute(sqlalchemy.text(f"SET lock_timeout = {int(wait * 1000)}"))
        try:
            session.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
        except DBAPIError as error:
            if "lock timeout" not in str(error):
                raise
            raise UserError(f"{name}: another promotion still holds its lock after {wait:g} s; try later") from None
        try:
            yield
        finally:
            session.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": key})


@contextmanager
def _by_name(client: MlflowClient, name: str, wait: float) -> Iterator[None]:
    lock = f"{name}.promotion"
    holder = (
        f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    )
    deadline = time.monotonic() + wait
    while True:
        try:
            client.create_registered_model(lock, description=f"Held while aliases of {name} move: {holder}")
            break
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        if time.monotonic() > deadline:
            raise UserError(
                f"{name}: another promotion still holds its lock after {wait:g} s ({_held(client, lock)}). If that "
                f"process is gone, delete the registered model {lock} in MLflow and try again"
            )
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        client.delete_registered_model(lock)


def _held(client: MlflowClient, lock: str) -> str:
    try:
        return client.get_registered_model(lock).description.partition(": ")[2]
    except MlflowException:
        return "it was released just now"
