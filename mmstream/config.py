"""Loads a YAML file into settings; each problem is one line: the place, the key, what is allowed.

    configs/demo.yaml:12:5: sources.door.uri: unknown key; did you mean 'url'? allowed: type, url

How YAML is read, and what `!env` and `!secret` do, says `mmstream.yaml_tree`. What these two give,
and whatever a `SecretStr` takes, is in no error text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import isclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, SecretBytes, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from mmstream.errors import ConfigError, mask_credentials
from mmstream.yaml_tree import (
    Node,
    Place,
    nearest,
    nearest_file,
    overridden,
    plain,
    read_tree,
    walk,
)

_LONGEST_SHOWN: Final = 200


class Settings(BaseModel):
    """Base of every part's settings: frozen; unknown keys, infinities and NaN are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


M = TypeVar("M", bound=Settings)


def load(path: Path, model: type[M], overrides: Sequence[str] = ()) -> M:
    """The settings in the file at `path`, with each `key.path=value` of `overrides` put over them.

    A value of an override is a YAML scalar or flow collection. Mappings on its way that are not
    there are made; a number on its way picks an entry of a list that is there.

    Raises:
        ConfigError: the file cannot be read or something in it is wrong; one line per problem.
    """
    root = read_tree(path)
    if not isinstance(root.value, dict):
        what = "is empty" if root.value is None else "must be a mapping of keys"
        msg = f"{root.place}: {what}; allowed: {', '.join(_allowed([model]))}"
        raise ConfigError(msg)
    refused: list[str] = []
    for override in overrides:
        try:
            root = overridden(root, override, path.parent)
        except ConfigError as error:
            refused.append(str(error))
    problems = [
        Problem(node.place, ".".join(keys), node.problem)
        for keys, node in walk(root)
        if node.problem
    ]
    errors: list[ErrorDetails] = []
    try:
        settings = model.model_validate(plain(root))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    else:
        if not refused and not problems:
            return settings
    # Raised out here, so that no ValidationError with the values it saw hangs on the ConfigError.
    problems += problems_of(errors, root, model)
    lines = [str(problem) for problem in sorted(problems, key=Problem.order)]
    raise ConfigError(mask_credentials("\n".join(lines + refused)))


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    place: Place
    keys: str
    """The key path with dots; empty: the whole file."""
    text: str

    def __str__(self) -> str:
        shown = [str(self.place), self.keys, self.text]
        if not self.keys or self.place.origin == f"--set {self.keys}":
            del shown[1]
        return ": ".join(shown)

    def order(self) -> tuple[bool, Place]:
        """By place, overrides last."""
        return (self.place.line == 0, self.place)


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where an error lies, in the file and in the settings."""

    node: Node
    """The deepest that is there."""
    keys: tuple[str, ...]
    kinds: list[object]
    """The types that the value may have."""
    owners: list[object]
    """The types that the mapping around it may have."""

    @property
    def secret(self) -> bool:
        """Whether its value must not be shown."""
        return self.node.secret or SecretStr in self.kinds or SecretBytes in self.kinds


def problems_of(errors: Sequence[ErrorDetails], root: Node, model: type[Settings]) -> list[Problem]:
    """What pydantic found wrong with the tree at `root`, in the words of this module."""
    secrets = [node.written for _, node in walk(root) if node.secret and node.written]
    spots = [_spot(root, model, error) for error in errors]
    wrong_within = {spot.keys[:n] for spot in spots for n in range(len(spot.keys))}
    texts: dict[tuple[Place, str], list[str]] = {}
    for error, spot in zip(errors, spots, strict=True):
        if spot.node.problem or spot.keys in wrong_within:
            continue  # said already, or an arm of a union that does not take a mapping at all
        at_key = error["type"] == "extra_forbidden" or error["loc"][-1:] == ("[key]",)
        place = (spot.node.key_place if at_key else None) or spot.node.place
        text = _text(error, spot, secrets)
        here = texts.setdefault((place, ".".join(spot.keys)), [])
        if text not in here:
            here.append(text)
    # Several at one place are the alternatives of a union, none of which fits.
    return [Problem(place, keys, "; or ".join(here)) for (place, keys), here in texts.items()]


def _spot(root: Node, model: type[Settings], error: ErrorDetails) -> _Spot:
    """Follow a pydantic location, which also holds the names of union branches."""
    loc: tuple[int | str, ...] = error["loc"]
    if error["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        loc += (error["ctx"]["discriminator"].strip("'"),)
    spot = _Spot(root, (), [model], [])
    for part in loc:
        branch = [kind for kind in spot.kinds if part in _branch_names(kind, spot.kinds)]
        if len(spot.kinds) > 1 and branch:
            spot = replace(spot, kinds=branch)
            continue
        inner = [found for kind in spot.kinds for found in _inside(kind, part)]
        keys = (*spot.keys, str(part))
        child = _child(spot.node, part)
        if child is not None:
            spot = _Spot(child, keys, inner, spot.kinds)
        elif part in _allowed(spot.kinds) or isinstance(part, int):
            return _Spot(spot.node, keys, inner, spot.kinds)
    return spot


def _child(node: Node, part: int | str) -> Node | None:
    if isinstance(node.value, dict):
        return node.value.get(str(part))
    if isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
        return node.value[part]
    return None


def _kinds(annotation: object) -> list[object]:
    """The types that an annotation allows: out of Annotated, unions and Optional."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return [
            kind for arm in get_args(annotation) for kind in _kinds(arm) if kind is not NoneType
        ]
    return [annotation]


def _inside(kind: object, part: int | str) -> list[object]:
    """The types that the value at `part` of a value of type `kind` may have."""
    if isclass(kind) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        if field is not None:
            return _kinds(field.annotation)
        further = kind.__annotations__.get("__pydantic_extra__")  # where it takes any keys
        return [] if further is None else _inside(further, part)
    arms = [arm for arm in get_args(kind) if arm is not Ellipsis]
    if not arms or get_origin(kind) is Literal:
        return []
    if isinstance(part, int):
        return _kinds(arms[min(part, len(arms) - 1)])
    return _kinds(arms[-1])


def _models(kinds: Sequence[object]) -> list[type[BaseModel]]:
    return [kind for kind in kinds if isclass(kind) and issubclass(kind, BaseModel)]


def _branch_names(kind: object, among: Sequence[object]) -> set[object]:
    """What pydantic calls a model among the arms of a union: its tags and its class."""
    names: set[object] = set()
    for model in _models([kind]):
        shared = set.intersection(*(set(arm.model_fields) for arm in _models(among)))
        names.add(model.__name__)
        for annotation in (model.model_fields[field].annotation for field in shared):
            names.update(get_args(annotation) if get_origin(annotation) is Literal else ())
    return names


def _allowed(kinds: Sequence[object]) -> list[str]:
    return sorted({name for model in _models(kinds) for name in model.model_fields})


_TEXTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "must be a mapping"),
    **dict.fromkeys(("list_type", "tuple_type", "frozen_set_type"), "must be a list"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "string_type": "must be text, in quotes if need be",
    "path_not_file": "no such file",
    "path_not_directory": "no such folder",
}
"""Pydantic's words where ours are plainer, by its type of error."""


def _text(error: ErrorDetails, spot: _Spot, secrets: Sequence[str]) -> str:
    """What is wrong there, what is allowed and what is nearest."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = _allowed(spot.owners)
        hint = nearest(spot.keys[-1], allowed) or ";"
        return f"unknown key{hint} allowed: {', '.join(allowed)}"
    if kind == "missing":
        return "missing, but required"
    if kind == "union_tag_not_found":
        known = [repr(tag) for literal in spot.kinds for tag in get_args(literal)]
        return f"missing, but required; allowed: {', '.join(known)}"
    said = error["msg"]
    for secret in secrets:  # a validator may have quoted it
        said = said.replace(secret, "***").replace(repr(secret)[1:-1], "***")
    if kind in {"value_error", "assertion_error"}:
        return said.partition(", ")[2]
    tags = str(context.get("expected_tags", "")).rsplit(", ", 1)
    choices = str(context.get("expected") or " or ".join(tags))
    choices = re.sub(r"\b(True|False)\b", lambda found: found[0].lower(), choices)
    text = f"must be {choices}" if choices else _TEXTS.get(kind, "")
    text = text or re.sub(r"^\w+ should ", "must ", said)
    if spot.secret:
        return text
    hint = nearest(spot.node.written, re.findall("'(.*?)'", choices))
    if kind == "path_not_file":
        hint = nearest_file(Path(spot.node.written))
    return f"{text} (got {_shown(spot.node)}){hint}"


def _shown(node: Node) -> str:
    match node.value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "nothing"
        case str():
            whole = repr(node.value)
        case _:
            whole = node.written
    return whole if len(whole) <= _LONGEST_SHOWN else f"{whole[:_LONGEST_SHOWN]}..."
