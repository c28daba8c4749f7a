import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.errors import ConfigError
from mmstream.yaml_tree import Node, overridden, plain, read_tree, walk

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["C"]), max_size=8),
)
KEYS = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def read(folder: Path, text: str) -> Node:
    path = folder / "demo.yaml"
    path.write_text(text, encoding="utf-8")
    return read_tree(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    return str(caught.value).replace(f"{folder}/", "")


def problems(root: Node) -> dict[str, str]:
    return {".".join(keys): node.problem for keys, node in walk(root) if node.problem}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("on", "on"),
        ("no", "no"),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-012", -12),
        ("0x1F", 31),
        ("0o17", 15),
        ("1e-6", 1e-6),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("10:30", "10:30"),
        ("2026-11-23", "2026-11-23"),
        ("2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z"),
        ("12:34:56:78", "12:34:56:78"),
        ("1_000", "1_000"),
        ("1.2.3", "1.2.3"),
        ("rtsp://cam:554/a#b", "rtsp://cam:554/a#b"),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ("!!float 12", 12.0),
    ],
)
def test_scalars_follow_yaml_1_2(tmp_path: Path, written: str, value: object) -> None:
    root = read(tmp_path, f"key: {written}")
    assert plain(root) == {"key": value}
    assert problems(root) == {}


@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_json_reads_as_it_does_elsewhere(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object]
) -> None:
    text = json.dumps(tree, ensure_ascii=False)
    assert plain(read(tmp_path_factory.getbasetemp(), text)) == tree


def test_keys_are_text_as_written(tmp_path: Path) -> None:
    root = read(tmp_path, "on: 1\n2: 3\ntrue: 4\n'x y': 5")
    assert plain(root) == {"on": 1, "2": 3, "true": 4, "x y": 5}


def test_nodes_know_where_they_stand(tmp_path: Path) -> None:
    root = read(tmp_path, "# a comment\nlabels:\n  motion: {on: 0.5}\n  list:\n    - x\n    -  y\n")
    places = {
        ".".join(keys): (node.key_place and node.key_place.line, node.place.line, node.place.column)
        for keys, node in walk(root)
    }
    assert places == {
        "": (None, 2, 1),
        "labels": (2, 3, 3),
        "labels.motion": (3, 3, 11),
        "labels.motion.on": (3, 3, 16),
        "labels.list": (4, 5, 5),
        "labels.list.0": (None, 5, 7),
        "labels.list.1": (None, 6, 8),
    }
    assert str(root.place) == f"{tmp_path}/demo.yaml:2:1"


def test_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: 2\r\n")
    root = read_tree(path)
    assert plain(root) == {"a": 1, "b": {"c": 2}}
    assert root.place.column == 1


def test_an_empty_file_has_no_value(tmp_path: Path) -> None:
    assert read(tmp_path, "# nothing yet\n").value is None


def test_aliases_and_merges(tmp_path: Path) -> None:
    root = read(
        tmp_path,
        "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\n"
        "c: {<<: *a, y: 3}\nd: {<<: [*a, *b], q: 4}\ne: *a\nf: {'<<': 5}\n",
    )
    assert plain(root) == {
        "a": {"x": 1, "y": 1},
        "b": {"y": 2, "z": 2},
        "c": {"x": 1, "y": 3},
        "d": {"x": 1, "y": 1, "z": 2, "q": 4},
        "e": {"x": 1, "y": 1},
        "f": {"<<": 5},
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1, 2", "demo.yaml:1:9: not valid YAML: "),
        ("a: 1\n\tb: 2", "demo.yaml:2:1: not valid YAML: "),
        ("a: b: c", "demo.yaml:1:5: not valid YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "demo.yaml:2:1: not valid YAML: "),
        ("a: 1\nb: \x00", "demo.yaml:2:4: not valid YAML: a character that may not stand in it"),
        ("a: &x [*x]", "demo.yaml:1:4: holds itself through an alias"),
        ("[a, b]: 1", "demo.yaml:1:1: a key is one word, not a collection"),
        ("a: {<<: 3}", "demo.yaml:1:9: << merges a mapping or a list of mappings"),
        ("a: {<<: [{}, 3]}", "demo.yaml:1:14: << merges a mapping or a list of mappings"),
        ("[" * 5_000, "demo.yaml: nested too deeply"),
    ],
)
def test_what_cannot_be_read_has_a_place(tmp_path: Path, text: str, says: str) -> None:
    assert refusal(tmp_path, text).startswith(says)


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_bytes("a: 1\nort: Köln".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"demo\.yaml:2:7: is not UTF-8 text"):
        read_tree(path)


def test_an_unquoted_password_that_breaks_yaml_is_not_quoted_back(tmp_path: Path) -> None:
    assert "hunter2" not in refusal(tmp_path, "password: *hunter2")
    assert "hunter2" not in refusal(tmp_path, "password: !hunter2!x y")
    assert problems(read(tmp_path, "password: !hunter2")) == {
        "password": "unknown tag; allowed: !env NAME, !secret NAME; text with a '!' needs quotes"
    }


@pytest.mark.parametrize(
    "text", ["a: !!python/object:os.system x", "a: !!python/name:os.system", "a: !!set {x, y}"]
)
def test_tags_make_no_objects(tmp_path: Path, text: str) -> None:
    assert "unknown tag" in problems(read(tmp_path, text))["a"]


def test_a_tag_that_does_not_fit_is_a_problem(tmp_path: Path) -> None:
    root = read(tmp_path, "a: !!int many\nb: !!bool on\nc: 1")
    assert problems(root) == {"a": "is no int", "b": "is no bool"}


def test_a_key_that_stands_twice_is_a_problem(tmp_path: Path) -> None:
    root = read(tmp_path, "a: {b: 1}\nc: 2\na: {b: 3}\n")
    assert problems(root) == {"a": f"this key stands twice; first at {tmp_path}/demo.yaml:1:1"}


def test_environment_variables_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAM_PORT", "554")
    monkeypatch.delenv("CAM_PASSWORD", raising=False)
    root = read(tmp_path, "port: !env CAM_PORT\npassword: !env CAM_PASSWORD")
    assert plain(root) == {"port": "554", "password": None}
    assert [node.secret for _, node in walk(root)] == [False, True, False]
    assert problems(root) == {"password": "the environment variable 'CAM_PASSWORD' is not set"}


def test_secrets_come_from_the_file_beside(tmp_path: Path) -> None:
    (tmp_path / "secrets.yaml").write_text("mqtt: 0123\ncam: 'p: @'\n")
    root = read(tmp_path, "a: !secret mqtt\nb: [!secret cam]")
    assert plain(root) == {"a": "0123", "b": ["p: @"]}
    assert [node.secret for _, node in walk(root)] == [False, True, False, True]


def test_a_secret_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "secrets.yaml"
    text = "a: !secret mqt\n"
    assert problems(read(tmp_path, text)) == {"a": f"'mqt' is a secret, but there is no {file}"}
    file.write_text("mqtt: hunter2\nlist: [hunter2]\n")
    assert problems(read(tmp_path, text)) == {"a": f"no 'mqt' in {file}; did you mean 'mqtt'?"}
    assert problems(read(tmp_path, "a: !secret list")) == {
        "a": "a secret is one value, no collection"
    }


@pytest.mark.parametrize(
    ("secrets", "says"),
    [
        ("[hunter2]", "secrets.yaml: must be a mapping of names to values"),
        ("a: 'hunter2", "secrets.yaml:1:12: not valid YAML: "),
    ],
)
def test_broken_secrets(tmp_path: Path, secrets: str, says: str) -> None:
    (tmp_path / "secrets.yaml").write_text(secrets)
    text = refusal(tmp_path, "a: !secret a")
    assert text.startswith(says)
    assert "hunter2" not in text


def test_secrets_do_not_refer_to_secrets(tmp_path: Path) -> None:
    (tmp_path / "secrets.yaml").write_text("a: !secret a\n")
    (node,) = [node for _, node in walk(read(tmp_path, "x: !secret a")) if node.problem]
    assert str(node.place) == f"{tmp_path}/secrets.yaml:1:4"
    assert node.problem.startswith("unknown tag")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("a.b=2", {"a": {"b": 2}, "list": [1, {"x": 1}], "empty": None}),
        ("a={c: [1, 2]}", {"a": {"c": [1, 2]}, "list": [1, {"x": 1}], "empty": None}),
        ("a.b=", {"a": {"b": None}, "list": [1, {"x": 1}], "empty": None}),
        ("a.b=''", {"a": {"b": ""}, "list": [1, {"x": 1}], "empty": None}),
        ("a.b=x=y", {"a": {"b": "x=y"}, "list": [1, {"x": 1}], "empty": None}),
        ("list.1.x=2", {"a": {"b": 1}, "list": [1, {"x": 2}], "empty": None}),
        ("list.0=[]", {"a": {"b": 1}, "list": [[], {"x": 1}], "empty": None}),
        ("empty.p.q=on", {"a": {"b": 1}, "list": [1, {"x": 1}], "empty": {"p": {"q": "on"}}}),
    ],
)
def test_overrides(tmp_path: Path, override: str, value: object) -> None:
    root = read(tmp_path, "a: {b: 1}\nlist: [1, {x: 1}]\nempty:\n")
    assert plain(overridden(root, override, tmp_path)) == value
    assert plain(root) == {"a": {"b": 1}, "list": [1, {"x": 1}], "empty": None}


def test_an_override_leaves_other_aliases_alone(tmp_path: Path) -> None:
    root = read(tmp_path, "a: &a {x: 1}\nb: *a\n")
    assert plain(overridden(root, "b.x=2", tmp_path)) == {"a": {"x": 1}, "b": {"x": 2}}


def test_an_override_may_name_a_secret_and_mends_one(tmp_path: Path) -> None:
    (tmp_path / "secrets.yaml").write_text("mqtt: hunter2\n")
    root = read(tmp_path, "password: !env NOT_THERE")
    assert problems(root)
    root = overridden(root, "password=!secret mqtt", tmp_path)
    assert plain(root) == {"password": "hunter2"}
    assert not problems(root)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("a", "--set a: must read key.path=value"),
        ("=1", "--set : must read key.path=value"),
        ("a..b=1", "--set a..b: must read key.path=value"),
        ("a.b.c=1", "--set a.b.c: what should hold 'c' is a single value, not a mapping"),
        ("list.2=1", "--set list.2: no entry 2 in a list of 2; the first is 0"),
        ("list.-1=1", "--set list.-1: no entry -1 in a list of 2; the first is 0"),
        ("list.x=1", "--set list.x: no entry x in a list of 2; the first is 0"),
        ("a.password=[hunter2", "--set a.password: not valid YAML: "),
    ],
)
def test_overrides_that_cannot_be(tmp_path: Path, override: str, says: str) -> None:
    root = read(tmp_path, "a: {b: 1}\nlist: [1, {x: 1}]\n")
    with pytest.raises(ConfigError) as caught:
        overridden(root, override, tmp_path)
    assert str(caught.value).startswith(says)
    assert "hunter2" not in str(caught.value)
