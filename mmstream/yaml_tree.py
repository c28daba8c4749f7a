"""A YAML file as a tree of nodes that know where they stand; `mmstream.config` validates it.

YAML is read by the core schema of version 1.2: `on`, `10:30` and `2026-11-23` are text, so that a
key may be called `on`. `<<` merges; `!env NAME` is an environment variable and `!secret NAME` a
value of `secrets.yaml` beside the file, both always text.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Final

import yaml

from mmstream.errors import ConfigError

SECRETS_FILE: Final = "secrets.yaml"

_TAG: Final = "tag:yaml.org,2002:"
_UNKNOWN_TAG: Final = "unknown tag; allowed: !env NAME, !secret NAME; text with a '!' needs quotes"

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something was written."""

    origin: str
    """A file, or `--set key.path`."""
    line: int = 0
    """From 1; 0: it has no lines."""
    column: int = 0
    """From 1."""

    def __str__(self) -> str:
        return f"{self.origin}:{self.line}:{self.column}" if self.line else self.origin


@dataclass(frozen=True, slots=True)
class Node:
    """One value and what is below it."""

    place: Place
    value: "Scalar | dict[str, Node] | list[Node]" = None
    key_place: Place | None = None
    """Where its key stands, if it has one."""
    written: str = ""
    """A scalar as it was written."""
    secret: bool = False
    """From `!env` or `!secret`: not to be shown."""
    problem: str = ""
    """What is wrong with it whatever the settings allow."""


def read_tree(path: Path) -> Node:
    """The file at `path`; the root's value is None when it is empty.

    Raises:
        ConfigError: it cannot be read, is not YAML or has a form that no configuration has.
    """
    return _Parser(str(path), path.parent).parse(_read(path))


def overridden(root: Node, override: str, folder: Path) -> Node:
    """A copy of the tree with one `key.path=value` put over it; secrets are in `folder`.

    Raises:
        ConfigError: it does not read so, or the path leads through a single value.
    """
    path, equals, text = override.partition("=")
    origin = f"--set {path.strip()}"
    keys = path.strip().split(".")
    if not equals or not all(keys):
        msg = f"{origin}: must read key.path=value"
        raise ConfigError(msg)
    new = _Parser(origin, folder, has_lines=False).parse(text)
    try:
        return _grafted(root, keys, replace(new, key_place=Place(origin)))
    except LookupError as error:
        msg = f"{origin}: {error.args[0]}"
        raise ConfigError(msg) from None


def plain(node: Node) -> object:
    """The tree as dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def walk(node: Node, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Every node with the keys that lead to it."""
    yield keys, node
    children: Mapping[str, Node] = {}
    if isinstance(node.value, dict):
        children = node.value
    elif isinstance(node.value, list):
        children = {str(index): child for index, child in enumerate(node.value)}
    for key, child in children.items():
        yield from walk(child, (*keys, key))


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing when none of the words is near."""
    matches = get_close_matches(word, list(words), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def nearest_file(path: Path) -> str:
    """As `nearest`, among the files beside one that is not there."""
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return f"; there is no folder '{path.parent}' that can be read"
    matches = get_close_matches(path.name, names, n=1)
    return f"; did you mean '{path.with_name(matches[0])}'?" if matches else ""


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        msg = f"{path}: no such file{nearest_file(path)}"
        raise ConfigError(msg) from None
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise ConfigError(msg) from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(errors="replace")
        msg = f"{_place_after(str(path), before)}: is not UTF-8 text"
        raise ConfigError(msg) from None


def _place_after(origin: str, before: str) -> Place:
    return Place(origin, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _grafted(node: Node, keys: Sequence[str], new: Node) -> Node:
    """A copy of `node` with `new` at `keys` below it; LookupError says why that cannot be."""
    if not keys:
        return new
    key, *rest = keys
    if isinstance(node.value, list):
        if not (key.isdecimal() and int(key) < len(node.value)):
            msg = f"no entry {key} in a list of {len(node.value)}; the first is 0"
            raise LookupError(msg)
        at = int(key)
        items = [*node.value[:at], _grafted(node.value[at], rest, new), *node.value[at + 1 :]]
        return replace(node, value=items)
    if node.value is not None and not isinstance(node.value, dict):
        msg = f"what should hold {key!r} is a single value, not a mapping"
        raise LookupError(msg)
    children = node.value or {}
    child = children.get(key, Node(new.place, key_place=new.place))
    return replace(node, value={**children, key: _grafted(child, rest, new)})


class _Loader(yaml.SafeLoader):
    """SafeLoader that resolves plain scalars by YAML 1.2's core schema (section 10.3.2)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 -- PyYAML's own


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), _first)


def _float(written: str) -> float:
    return float(written.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _int(written: str) -> int:
    return int(written, 0) if written[:2] in {"0x", "0o"} else int(written)


_CONSTRUCT: Final[Mapping[str, Callable[[str], Scalar]]] = {
    _TAG + "str": str,
    _TAG + "null": lambda _: None,
    _TAG + "bool": lambda written: {"true": True, "false": False}[written.lower()],
    _TAG + "int": _int,
    _TAG + "float": _float,
}


class _Parser:
    """Makes the tree of one YAML text."""

    def __init__(self, origin: str, folder: Path | None, *, has_lines: bool = True) -> None:
        """`folder` is where secrets are; None: there are none."""
        self._origin = origin
        self._folder = folder
        self._has_lines = has_lines
        self._open: list[yaml.Node] = []

    def parse(self, text: str) -> Node:
        """The root of the tree; its value is None when the text is empty."""
        try:
            root = yaml.compose(text, Loader=_Loader)
            return Node(Place(self._origin)) if root is None else self._node(root)
        except yaml.MarkedYAMLError as error:
            # What stands behind these words is what the user wrote, perhaps a password.
            why = re.sub(r"(alias|anchor|tag handle) .*", r"\1", error.problem or "broken")
            raise self._refusal(error.problem_mark, f"not valid YAML: {why}") from None
        except yaml.reader.ReaderError as error:
            place = _place_after(self._origin, text[: error.position])
            msg = f"{place}: not valid YAML: a character that may not stand in it"
            raise ConfigError(msg) from None
        except RecursionError:
            raise self._refusal(None, "nested too deeply") from None

    def _place(self, mark: yaml.Mark | None) -> Place:
        if mark is None or not self._has_lines:
            return Place(self._origin)
        return Place(self._origin, mark.line + 1, mark.column + 1)

    def _refusal(self, mark: yaml.Mark | None, text: str) -> ConfigError:
        return ConfigError(f"{self._place(mark)}: {text}")

    def _node(self, node: yaml.Node) -> Node:
        place = self._place(node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if node.tag not in {_TAG + "map", _TAG + "seq"}:
            return Node(place, problem=_UNKNOWN_TAG)
        if any(node is above for above in self._open):
            raise self._refusal(node.start_mark, "holds itself through an alias")
        self._open.append(node)
        if isinstance(node, yaml.MappingNode):
            made = Node(place, self._mapping(node))
        else:
            made = Node(place, [self._node(item) for item in node.value])
        self._open.pop()
        return made

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        children: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._refusal(key.start_mark, "a key is one word, not a collection")
            key_place = self._place(key.start_mark)
            child = self._node(value)
            if key.value == "<<" and key.style is None:
                merged |= self._merged(child)
                continue
            first = children.get(key.value)
            if first is not None:
                problem = f"this key stands twice; first at {first.key_place}"
                child = replace(child, place=key_place, problem=problem)
            children[key.value] = replace(child, key_place=key_place)
        return merged | children

    def _merged(self, node: Node) -> dict[str, Node]:
        merged: dict[str, Node] = {}
        for part in reversed(node.value if isinstance(node.value, list) else [node]):
            if not isinstance(part.value, dict):
                msg = f"{part.place}: << merges a mapping or a list of mappings"
                raise ConfigError(msg)
            merged |= part.value
        return merged

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Node:
        written = node.value
        if node.tag == "!env":
            if written not in os.environ:
                return Node(place, problem=f"the environment variable {written!r} is not set")
            return Node(place, os.environ[written], written=os.environ[written], secret=True)
        if node.tag == "!secret" and self._folder is not None:
            return self._secret(written, self._folder / SECRETS_FILE, place)
        if node.tag not in _CONSTRUCT:
            return Node(place, problem=_UNKNOWN_TAG)
        try:
            return Node(place, _CONSTRUCT[node.tag](written), written=written)
        except (ValueError, KeyError):
            return Node(place, problem=f"is no {node.tag.removeprefix(_TAG)}")

    def _secret(self, name: str, file: Path, place: Place) -> Node:
        if not file.is_file():
            return Node(place, problem=f"{name!r} is a secret, but there is no {file}")
        found = self._secrets.get(name)
        if found is None:
            return Node(place, problem=f"no {name!r} in {file}{nearest(name, self._secrets)}")
        if found.problem or isinstance(found.value, dict | list):
            return replace(found, problem=found.problem or "a secret is one value, no collection")
        return Node(place, found.written, written=found.written, secret=True)

    @cached_property
    def _secrets(self) -> Mapping[str, Node]:
        file = (self._folder or Path()) / SECRETS_FILE
        root = _Parser(str(file), None).parse(_read(file))
        if not isinstance(root.value, dict):
            msg = f"{file}: must be a mapping of names to values"
            raise ConfigError(msg)
        return root.value
