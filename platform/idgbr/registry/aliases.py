"""The aliases champion, challenger and previous of a registered model: reading them, and moving them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from rich.table import Table

from idgbr.errors import UserError
from idgbr.registry.lock import promotion_lock
from idgbr.registry.store import connect
from idgbr.registry.versions import CHALLENGER

CHAMPION = "champion"
PREVIOUS = "previous"
ROLES = (CHAMPION, CHALLENGER, PREVIOUS)

VERDICT_TAG = "gate.verdict"
"""promoted or refused."""
WHY_TAG = "gate.why"
_SINCE_TAG = "{}.since"
_REASON_TAG = "{}.why"


@dataclass(frozen=True)
class Role:
    """A version in a role.

    Attributes:
        role: champion, challenger or previous.
        version: number of the version.
        since: when it got the role; UTC, ISO 8601.
        why: the reason, as text.
        verdict: verdict of the last quality gate on this version, promoted or refused; empty if there was none.
    """

    role: str
    version: str
    since: str
    why: str
    verdict: str


def now() -> str:
    """The current time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Read the version of every role from the store.

    Raises:
        UserError: there is no such registered model; the message names the existing ones.
    """
    try:
        found = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = ", ".join(sorted(model.name for model in client.search_registered_models())) or "none"
        raise UserError(f"--model: no registered model is named {name}; registered: {known}") from None
    return {role: str(found[role]) for role in ROLES if role in found}


def install(client: MlflowClient, name: str, version: str, why: str) -> None:
    """Makes a version champion and the old champion previous. Callers must hold `promotion_lock`.

    The alias previous is set before the alias champion moves. If the call is interrupted, there still is a champion,
    and a repeated call completes the change.

    Args:
        client: the store.
        name: the registered model.
        version: the version.
        why: the reason, stored as a tag that `status` reads.
    """
    before = aliases(client, name)
    champion = before.get(CHAMPION)
    if champion is not None and champion != version:
        _note(client, name, champion, PREVIOUS, f"version {version} took over")
        client.set_registered_model_alias(name, PREVIOUS, champion)
    _note(client, name, version, CHAMPION, why)
    client.set_registered_model_alias(name, CHAMPION, version)
    if before.get(CHALLENGER) == version:
        client.delete_registered_model_alias(name, CHALLENGER)


def roll_back(uri: str, name: str) -> tuple[str, str]:
    """Puts the previous champion back.

    Afterwards no version has the role previous: a second call does not restore the version that was just removed.

    Returns:
        The version removed from the role, and the champion.

    Raises:
        UserError: there is no previous champion.
    """
    client = connect(uri)
    with promotion_lock(uri, name):
        found = aliases(client, name)
        champion, previous = found.get(CHAMPION), found.get(PREVIOUS)
        if previous is None or previous == champion:
            raise UserError(
                f"{name}: there is no previous champion to go back to; aliases: "
                + (", ".join(f"@{role} = {version}" for role, version in found.items()) or "none")
            )
        _note(client, name, previous, CHAMPION, f"rolled back from version {champion}")
        client.set_registered_model_alias(name, CHAMPION, previous)
        client.delete_registered_model_alias(name, PREVIOUS)
        if champion is not None:
            client.set_model_version_tag(name, champion, "rolled_back.since", now())
    return str(champion), previous


def status(uri: str, name: str) -> list[Role]:
    """Every role that a version holds, champion first.

    Raises:
        UserError: no such registered model.
    """
    client = connect(uri)
    roles = []
    for role, version in aliases(client, name).items():
        found = client.get_model_version(name, version)
        since = found.tags.get(_SINCE_TAG.format(role))
        if since is None and role == CHALLENGER:
            since = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
        why = found.tags.get(_REASON_TAG.format(role)) or ("registered" if role == CHALLENGER else "set by hand")
        if role == CHALLENGER and WHY_TAG in found.tags:
            why = found.tags[WHY_TAG]
        roles.append(Role(role, version, since or "unknown", why, found.tags.get(VERDICT_TAG, "")))
    return roles


def status_table(name: str, roles: list[Role]) -> Table:
    """The roles as a table for the terminal."""
    table = Table(title=name)
    for heading in ("role", "version", "since (UTC)", "last verdict", "why"):
        table.add_column(heading)
    for role in roles:
        table.add_row(role.role, role.version, role.since.removesuffix("+00:00"), role.verdict or "–", role.why)
    return table


def set_tags(client: MlflowClient, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Sets tags of a version."""
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)


def _note(client: MlflowClient, name: str, version: str, role: str, why: str) -> None:
    set_tags(client, name, version, {_SINCE_TAG.format(role): now(), _REASON_TAG.format(role): why})
