"""Names of the keys of a configuration tree: every dotted key, where an error sits, the nearest known one."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel


def bare(annotation: Any) -> Any:
    """The annotation without `Annotated[...]` and without `| None`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) == 1:
            return bare(members[0])
    return annotation


def nodes(annotation: Any) -> list[type[BaseModel]]:
    """The models a value of this annotation may be: one for a section, several for a union, none for a plain value."""
    annotation = bare(annotation)
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    found = [bare(member) for member in members]
    return found if all(isinstance(node, type) and issubclass(node, BaseModel) for node in found) else []


def walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key below `model` with its annotation, sections included, each key once."""
    seen: set[str] = set()
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key, field.annotation
        for node in nodes(field.annotation):
            for below, annotation in walk(node, f"{key}."):
                if below not in seen:
                    seen.add(below)
                    yield below, annotation


def descriptions(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """The first sentence of every key's meaning below `model`, by dotted key."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if field.description:
            found.setdefault(key, " ".join(field.description.split()).partition(". ")[0].rstrip("."))
        for node in nodes(field.annotation):
            for below, meaning in descriptions(node, f"{key}.").items():
                found.setdefault(below, meaning)
    return found


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known key a misspelt one most likely meant: one of its own section first, then any of the tree."""
    known = list(known)
    section, _, name = key.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    if found := difflib.get_close_matches(name, siblings, n=1, cutoff=0.6):
        return siblings[found[0]]
    # A right name in the wrong section is a likelier slip than a string of similar letters.
    homonyms = [other for other in known if other.rpartition(".")[2] == name]
    best = difflib.get_close_matches(key, homonyms or known, n=1, cutoff=0.0 if homonyms else 0.4)
    return best[0] if best else None


def locate(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """The dotted key of a pydantic error, without the tags that pydantic adds for members of a union.

    Args:
        model: Root of the tree the error is about.
        location: The error's `loc`.

    Returns:
        For example `data.classes[2].colour`.
    """
    key = ""
    annotation: Any = model
    for part in location:
        annotation = bare(annotation)
        origin, members = get_origin(annotation), get_args(annotation)
        if origin in (Union, types.UnionType):
            tagged = [node for node in nodes(annotation) if node.model_fields["kind"].default == part]
            annotation = tagged[0] if tagged else None
        elif origin in (list, tuple, set):
            key, annotation = f"{key}[{part}]", members[0]
        elif origin is dict:
            if part != "[key]":
                key, annotation = f"{key}.{part}", members[1]
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}
            key, annotation = f"{key}.{part}" if key else str(part), fields.get(str(part))
    return key
