"""A table of trainings: what a row takes over; what is wrong, all at once, with its place."""

from pathlib import Path

import pytest

from mmstream.errors import ConfigError
from mmstream.models.fusion import ConcatSettings, DeepSettings, WeightedSettings
from mmstream.training.settings import TrainSettings
from mmstream.training.table import Table, read_table

COMMON = """\
title: Pets
data:
  type: manifest
  path: pets.csv
  keep: {sound: {}, pictures: {}}
  tasks: {pet: &pets [cat, dog]}
model:
  audio: {n_dims: 32, body: {type: transformer, n_heads: 4, n_layers: 1}}
  video: {n_dims: 32}
  fusion: {type: deep, n_dims: 32, n_layers: 1}
  heads: {pet: {labels: *pets, n_dims: 32}}
optimise: {n_epochs: 2}
"""
NOISE = "noise: {recordings: {path: noise.csv}}\n"
N_COMMON = COMMON.count("\n")


def _table(folder: Path, rows: str, common: str = COMMON) -> Table:
    path = folder / "pets.yaml"
    path.write_text(common + rows)
    return read_table(path)


def _refused(folder: Path, rows: str, common: str = COMMON) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        _table(folder, rows, common)
    return str(refused.value).replace(f"{folder}/", "").splitlines()


def test_a_row_has_the_common_settings_under_its_own(tmp_path: Path) -> None:
    table = _table(
        tmp_path,
        "rows:\n"
        "  audio:\n"
        "    model: {video: null, fusion: {type: concat, modalities: [audio], n_dims: 32}}\n"
        "  deep:\n"
        "    optimise: {n_batch: 8}\n"
        "    model: {fusion: {n_layers: 3}}\n",
    )
    assert (table.title, list(table.rows)) == ("Pets", ["audio", "deep"])
    audio, deep = table.rows["audio"], table.rows["deep"]
    assert audio.model.fusion == ConcatSettings(modalities=("audio",), n_dims=32)
    assert audio.model.video is None
    assert audio.model.audio == deep.model.audio
    assert deep.model.fusion == DeepSettings(n_dims=32, n_layers=3)
    assert (deep.optimise.n_epochs, deep.optimise.n_batch) == (2, 8)
    assert (audio.optimise.n_epochs, audio.optimise.n_batch) == (2, 64)


def test_of_the_common_keys_another_type_takes_those_that_it_has(tmp_path: Path) -> None:
    rows = "rows: {w: {model: {fusion: {type: weighted}}}, same: {model: {fusion: {type: deep}}}}\n"
    table = _table(tmp_path, rows)
    assert table.rows["w"].model.fusion == WeightedSettings(n_dims=32)
    assert table.rows["same"].model.fusion == DeepSettings(n_dims=32, n_layers=1)


def test_a_common_key_that_no_row_takes_is_a_mistake(tmp_path: Path) -> None:
    rows = "rows: {w: {model: {fusion: {type: weighted}}}, c: {model: {fusion: {type: concat}}}}\n"
    (said,) = _refused(tmp_path, rows)
    assert said == "pets.yaml:10:36: model.fusion.n_layers: no row has a type with this key"


def test_a_key_of_the_row_that_its_type_does_not_have_is_a_mistake(tmp_path: Path) -> None:
    rows = "rows: {w: {model: {fusion: {type: weighted, n_layers: 2}}}, d:}\n"
    (said,) = _refused(tmp_path, rows)
    assert said.startswith(
        f"pets.yaml:{N_COMMON + 1}:45: rows.w.model.fusion.n_layers: unknown key"
    )


def test_a_file_without_rows_is_one_training(tmp_path: Path) -> None:
    table = _table(tmp_path, "", COMMON.removeprefix("title: Pets\n"))
    assert (table.title, list(table.rows)) == ("pets", ["pets"])


def test_what_a_row_is_tested_under_is_no_setting_of_its_training(tmp_path: Path) -> None:
    rows = "rows: {a:, b: {test: {hidden: [[audio]], swapped: [pet], against: [a]}}}\n"
    table = _table(tmp_path, rows)
    assert table.rows["b"].test.against == ("a",)
    assert type(table.rows["b"].training) is TrainSettings
    assert table.rows["a"].training == table.rows["b"].training


def test_paths_are_relative_to_the_file_unless_media_says_where(tmp_path: Path) -> None:
    rows = (
        "test:\n  others:\n    more:\n      type: manifest\n      path: /else/more.csv\n"
        "      media: clips\n      keep: {sound: {}, pictures: {}}\n      tasks: {pet: *pets}\n"
    )
    (written,) = _table(tmp_path, NOISE + rows).rows.values()
    row = written.placed(tmp_path, None)
    assert row.data.model_dump(include={"path", "media"}) == {
        "path": tmp_path / "pets.csv",
        "media": None,
    }
    assert row.test.others["more"].model_dump(include={"path", "media"}) == {
        "path": Path("/else/more.csv"),
        "media": tmp_path / "clips",
    }
    row = written.placed(tmp_path, Path("/media"))
    assert row.noise is not None
    assert row.noise.recordings.path == tmp_path / "noise.csv"
    for data in (row.data, row.noise.recordings, row.test.others["more"]):
        assert data.model_dump()["media"] == Path("/media")


@pytest.mark.parametrize(
    ("written", "placed"),
    [("avp-small", "avp-small"), ("./avp-small", "{}/avp-small"), ("/else/avp", "/else/avp")],
)
def test_a_checkpoint_is_beside_the_table_too(tmp_path: Path, written: str, placed: str) -> None:
    (row,) = _table(tmp_path, f"start_from: {written}\n").rows.values()
    for media in (None, Path("/media")):
        assert row.placed(tmp_path, media).start_from == placed.format(tmp_path)


def test_everything_wrong_is_said_at_once_where_it_stands(tmp_path: Path) -> None:
    said = _refused(
        tmp_path,
        "rows:\n"
        "  audio:\n"
        "    model: {video: null, fusion: {type: concat, n_dims: 32}}\n"
        "    optimise: {patience: 0}\n"
        "  de ep:\n"
        "  weighted:\n"
        "    model: {fusion: {type: waited, n_dims: 32}}\n"
        "  three: 3\n",
        COMMON.replace("n_epochs: 2", "n_epochs: many") + "modell: {}\n",
    )
    line = N_COMMON + 2  # of `rows:`
    places = [one.partition(": ")[0] for one in said]
    assert places == [
        f"pets.yaml:{N_COMMON}:22",
        f"pets.yaml:{N_COMMON + 1}:1",
        f"pets.yaml:{line + 2}:12",
        f"pets.yaml:{line + 3}:26",
        f"pets.yaml:{line + 4}:3",
        f"pets.yaml:{line + 6}:28",
        f"pets.yaml:{line + 7}:10",
    ]
    texts = [one.partition(": ")[2] for one in said]
    allowed = (
        "augment, balance, data, device, frozen, loss, model, noise, optimise, pools, precision, "
        "rows, seed, share, start_from, test, title, words"
    )
    parts = "fusion.modalities are those with an encoder: got audio, video and encoders of audio"
    kinds = "must be 'concat', 'weighted' or 'deep' (got 'waited'); did you mean 'weighted'?"
    assert texts == [
        "optimise.n_epochs: must be a whole number (got 'many')",
        f"modell: unknown key; did you mean 'model'? allowed: {allowed}",
        f"rows.audio.model: {parts}",
        "rows.audio.optimise.patience: must be greater than or equal to 1 (got 0)",
        "rows.de ep: must match pattern '^[A-Za-z0-9_-]{1,64}$' (got nothing)",
        f"rows.weighted.model.fusion.type: {kinds}",
        "rows.three: must be a mapping (got 3)",
    ]


def test_an_error_in_what_all_share_is_said_once(tmp_path: Path) -> None:
    said = _refused(
        tmp_path, "rows: {a:, b: {seed: 1}, c:}\n", COMMON.replace("n_epochs", "epochs")
    )
    assert len(said) == 1
    assert said[0].startswith(
        f"pets.yaml:{N_COMMON}:12: optimise.epochs: unknown key; did you mean"
    )


@pytest.mark.parametrize(
    ("test", "why"),
    [
        ("against: [bee]", "no other row 'bee'; allowed: b"),
        ("against: [a]", "no other row 'a'"),
        ("against: [bb]", "did you mean 'b'?"),
        ("hidden: [[audio, video]]", "some but not all of audio, video: got audio, video"),
        ("hidden: [[]]", "got nothing"),
        ("hidden: [[text]]", "got text"),
        ("snr_db: [0]", "needs `noise`"),
        ("others: {test: {type: manifest, path: m.csv, keep: {}, tasks: {}}}", "is what the test"),
        ("others: {m: {type: manifest, path: m.csv, keep: {}, tasks: {}}}", "test.others.m: "),
    ],
)
def test_a_test_that_cannot_be_made_is_refused(tmp_path: Path, test: str, why: str) -> None:
    (said,) = _refused(tmp_path, f"rows:\n  a: {{test: {{{test}}}}}\n  b:\n")
    assert said.startswith(f"pets.yaml:{N_COMMON + 2}:")
    assert "rows.a" in said
    assert why in said


def test_sound_is_swapped_only_where_there_is_sound_and_sight(tmp_path: Path) -> None:
    model = "model: {video: null, fusion: {type: concat, modalities: [audio], n_dims: 32}}"
    rows = f"rows:\n  a: {{{model}, test: {{swapped: [pet]}}}}\n  b:\n"
    (said,) = _refused(tmp_path, rows)
    assert "test.swapped: tasks (pet) of a model of audio and video: got pet, and a" in said


@pytest.mark.parametrize(
    ("pools", "why"),
    [
        ("p: {rows: [a, c]}", "pools.p: no other 'c'; rows: a, b; pools: p"),
        ("p: {rows: [a, b], against: [p]}", "pools.p: no other 'p'"),
        ("a: {rows: [a, b]}", "pools.a: is called like a row"),
        ("p: {rows: [a, a]}", "pools.p: each row once: got a, a"),
        ("p: {rows: [a]}", "pools.p.rows: must have at least 2 items"),
        ("p q: {rows: [a, b]}", "pools.p q: must match pattern"),
    ],
)
def test_a_pool_is_of_rows_that_are_there(tmp_path: Path, pools: str, why: str) -> None:
    (said,) = _refused(tmp_path, f"rows: {{a:, b:}}\npools: {{{pools}}}\n")
    assert why in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "pets.yaml: is empty; allowed: augment"),
        ("[a]", "pets.yaml:1:1: must be a mapping of keys; allowed: "),
        (COMMON + "rows: {}\n", "must have at least 1"),
        (COMMON + "rows: [a]\n", "rows: must be a mapping"),
        (COMMON + "rows: {a:, a:}\n", "stands twice"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, why: str) -> None:
    assert any(why in line for line in _refused(tmp_path, "", text))
