"""Reads an experiment: a YAML file, environment variables in it, dotted overrides on top, one validated tree."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Hashable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from idgbr.config.keys import locate, nearest, walk
from idgbr.config.recipe import RECIPE
from idgbr.config.tree import Experiment
from idgbr.errors import UserError

Model = TypeVar("Model", bound=BaseModel)

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "dict": "a mapping of keys to values",
    "model": "a section of keys",
    "finite": "a finite number",
}

_LIMITS = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "string_pattern_mismatch": "text of the form {pattern}",
    "literal_error": "one of {expected}",
    "union_tag_invalid": "one of {expected_tags}",
}


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but a key that appears twice is an error, not a silent loss."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping a YAML file holds, with `${VAR}` and `${VAR:-default}` replaced from the environment.

    Raises:
        UserError: The file is missing, unreadable, no YAML or no mapping, or a variable without a default is unset.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name the YAML file of an experiment with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); expected a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        hint = _pattern_hint(path, mark.line) if mark else ""
        raise UserError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', None) or error}{hint}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: found {_shown(content)}; expected sections such as `data:` and `training:`")
    expanded: dict[str, Any] = _expand(content, str(path), "")
    return expanded


def _pattern_hint(path: Path, line: int) -> str:
    """What to do about a pattern of file names without quotes."""
    text = "".join(path.read_text(encoding="utf-8").splitlines()[line : line + 1])
    if not any(character in text for character in "*?["):
        return ""
    return "; a pattern of file names has to be quoted, as in '*.tif', since * and [ ] mean something in YAML"


def load_experiment(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Loads one experiment. A section that the file leaves out is that of `RECIPE`.

    Args:
        path: YAML file.
        overrides: Values by dotted key, for example `{"training.refiner.steps": 400}`; they win over the file.

    Raises:
        UserError: Names the file or override, the key, what was found and what was expected.
    """
    overrides = dict(overrides or {})
    content = read_yaml(path)
    content = {section: deepcopy(keys) for section, keys in RECIPE.items() if section not in content} | content
    # Shorter keys first: a whole section before its keys. Within a section `kind` first, it drops what is not its own.
    for key, value in sorted(overrides.items(), key=lambda item: (item[0].count("."), not item[0].endswith(".kind"))):
        _set(content, key.split("."), value)
    return validate(Experiment, content, str(path), overrides)


def validate(model: type[Model], content: Mapping[str, Any], source: str, overrides: Collection[str] = ()) -> Model:
    """Validates a mapping, putting every complaint into words.

    Args:
        model: What the mapping should be.
        content: The mapping.
        source: File (or other origin) to name in messages.
        overrides: Dotted keys that came from the command line; complaints about them name the flag instead.

    Raises:
        UserError: One line per complaint.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [_complaint(model, item, source, overrides) for item in error.errors()]
        raise UserError("\n".join(dict.fromkeys(lines))) from None


def _complaint(model: type[BaseModel], error: ErrorDetails, source: str, overrides: Collection[str]) -> str:
    key, kind, found = locate(model, error["loc"]), error["type"], error["input"]
    context = error.get("ctx", {})
    stem = key.partition("[")[0]
    where = (
        f"--{stem}"
        if any(stem == o or stem.startswith(f"{o}.") for o in overrides)
        else f"{source}: {key}".removesuffix(": ")
    )
    if kind == "extra_forbidden":
        close = nearest(key, (known for known, _ in walk(model)))
        hint = f"the nearest known key is {close}" if close else "no known key is near"
        return f"{where}: unknown key; {hint} (--help lists them all)"
    if kind == "missing":
        return f"{where}: missing; this key has no default and must be set"
    if kind == "union_tag_not_found":
        return f"{where}.kind: missing; it says which keys the section has"
    if kind == "union_tag_invalid":
        where, found = f"{where}.kind", context.get("tag")
    if kind == "value_error":
        return f"{where}: {context.get('error', error['msg'])}"
    if kind in _LIMITS:
        expected = _LIMITS[kind].format(**context)
    else:
        expected = _EXPECTED.get(kind.partition("_")[0], error["msg"])
    return f"{where}: found {_shown(found)}; expected {expected}"


def _set(content: dict[str, Any], path: list[str], value: Any) -> None:
    """Sets a dotted key. Another `kind` of a union makes the keys of the old kind meaningless: they go."""
    section = content
    for part in path[:-1]:
        below = section.get(part)
        section[part] = section = dict(below) if isinstance(below, dict) else {}
    if path[-1] == "kind" and path[-2:-1] == ["source"] and section.get("kind") != value:
        section.clear()
    section[path[-1]] = value


def _expand(value: Any, source: str, key: str) -> Any:
    if isinstance(value, dict):
        return {name: _expand(below, source, f"{key}.{name}" if key else str(name)) for name, below in value.items()}
    if isinstance(value, list):
        return [_expand(below, source, f"{key}[{index}]") for index, below in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name) or default
        if found is None:
            raise UserError(f"{source}: {key}: the environment variable {name} is not set; set it, or write "
                            f"${{{name}:-DEFAULT}}")  # fmt: skip
        return found

    return _VARIABLE.sub(replace, value)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
