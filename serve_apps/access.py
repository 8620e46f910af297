"""Access: API keys, and the Host names of the service.

Only hashes of keys are kept; a key is 32 random bytes, so that one round of SHA-256 is enough.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from idgbr.errors import UserError
from serve_apps.settings import AccessArgs

VARIABLE = "IDGBR_API_KEYS"
_LINE = re.compile(r"(?P<name>[\w.-]+):(?P<digest>[0-9a-f]{64})")


def new_key(name: str) -> tuple[str, str]:
    """A new key, and the line of its hash for the keys' file."""
    key = secrets.token_urlsafe(32)
    return key, f"{name}:{_digest(key)}"


class Keys:
    """The API keys that are accepted.

    Args:
        lines: name -> SHA-256 in hex.
    """

    def __init__(self, lines: Mapping[str, str]) -> None:
        self._lines = dict(lines)

    @classmethod
    def read(cls, access: AccessArgs) -> Keys:
        """The keys of the file and of the environment.

        Raises:
            UserError: the file is missing, or a line is not `name:sha256`.
        """
        texts = [(VARIABLE, os.environ.get(VARIABLE, ""))]
        if access.keys_file:
            path = Path(access.keys_file)
            if not path.is_file():
                raise UserError(f"access.keys_file: {path}: no such file; make one with python -m serve_apps.keys NAME")
            texts.append((str(path), path.read_text(encoding="utf-8")))
        lines: dict[str, str] = {}
        for where, text in texts:
            for line in re.split(r"[\s,]+", re.sub(r"#.*", "", text)):
                if not line:
                    continue
                match = _LINE.fullmatch(line)
                if match is None:
                    raise UserError(f"{where}: found {line[:20]!r}...; expected lines name:sha256 (64 hex digits)")
                lines[match["name"]] = match["digest"]
        return cls(lines)

    def __bool__(self) -> bool:
        return bool(self._lines)

    def caller(self, key: str) -> str | None:
        """The name of a key's owner; None for an unknown key. Takes the same time for any key."""
        digest = _digest(key)
        found = None
        for name, known in self._lines.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


def check_bind(host: str | None, keys: Keys, access: AccessArgs) -> None:
    """Refuses to serve everybody on an address that other machines reach.

    Raises:
        UserError: such an address, no keys, and `access.open_to_network` is not set.
    """
    if keys or access.open_to_network or is_loopback(host or "127.0.0.1"):
        return
    raise UserError(
        f"http_options.host: {host} is reached from other machines, and there are no API keys. Make one (python -m "
        "serve_apps.keys NAME) and name its file in access.keys_file, or set access.open_to_network: true"
    )


def allowed_hosts(host: str | None, access: AccessArgs) -> frozenset[str]:
    """Host names that requests may be addressed to; empty for every name."""
    if access.hosts:
        return frozenset(name.lower() for name in access.hosts)
    if host and is_loopback(host):
        # A page elsewhere whose name resolves to this machine must not reach a service that asks for no key.
        return frozenset({"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host})
    return frozenset()


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def bound_host() -> str | None:
    """The address this Serve listens at; None outside of Serve."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    return None if client is None else client.http_config.host
