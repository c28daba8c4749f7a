import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from mmstream.messages import CONTENTS
from mmstream.pipelines.configuration import schemas
from mmstream.runtime.control import VERBS

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ["docs/wire.md", *(f"mmstream/schemas/{name}.json" for name in schemas())]
PAGE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")


def wire_docs(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / "wire-docs"), *arguments]
    return subprocess.run(
        command,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The script and what it has written, elsewhere."""
    for name in ["scripts/wire-docs", *GENERATED]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_page_and_the_schemas_are_up_to_date() -> None:
    done = wire_docs(ROOT, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    on_disk = {path.stem for path in (ROOT / "mmstream" / "schemas").iterdir()}
    assert on_disk == set(schemas())


@pytest.mark.parametrize("name", ["docs/wire.md", "mmstream/schemas/event.json"])
def test_a_stale_file_is_named_and_mended(copied: Path, name: str) -> None:
    with (copied / name).open("a") as file:
        file.write("by hand")
    (copied / "mmstream/schemas/info.json").unlink()
    done = wire_docs(copied, "--check")
    assert done.returncode == 1
    assert f"out of date: {name}, mmstream/schemas/info.json; run" in done.stderr
    assert wire_docs(copied).returncode == 0
    assert wire_docs(copied, "--check").returncode == 0
    assert (copied / name).read_bytes() == (ROOT / name).read_bytes()


def test_every_message_has_an_example_that_fits_the_shipped_schema() -> None:
    names = [content.__name__ for content in CONTENTS]
    for name in names:
        section = PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        (topic,) = re.findall(r"^On `(.*)`:$", section, re.MULTILINE)
        (example,) = re.findall(r"^```json\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        shipped = ROOT / "mmstream" / "schemas" / f"{name.lower()}.json"
        schema = json.loads(shipped.read_text(encoding="utf-8"))
        payload = json.loads(example)
        jsonschema.validate(payload, schema, jsonschema.Draft202012Validator)
        assert topic.startswith(f"mmstream/{payload['node']}/")
        for field in schema["properties"]:
            assert f"| `{field}` |" in PAGE


def test_every_verb_is_told() -> None:
    section = PAGE.partition("\n## Requests\n")[2].partition("\n## ")[0]
    table = section.partition("| verb |")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == VERBS


def test_links_on_the_page_lead_somewhere() -> None:
    headings = {heading.lower() for heading in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)}
    links = set(re.findall(r"\]\(#([^)]*)\)", PAGE))
    assert {"event", "evidence", "wirebox"} <= links
    assert links <= headings
