"""What matches is counted right, and training times tokens as a stream does."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pretrain_world as world
import pytest
import torch
from avp_recordings import avp_settings, said_by_stream, scorer_of, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmstream.clock import ManualClock
from mmstream.errors import ConfigError
from mmstream.media import Hop, Modality
from mmstream.models.avp import Avp
from mmstream.models.avp_spec import EMBEDDING
from mmstream.models.tokens import Tokens
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.training import matching
from mmstream.training.dataset import Example, ExampleDataset
from mmstream.training.manifest import Annotation
from mmstream.training.matching import CHANCE, Matched, match, pairs_of
from mmstream.training.recordings import (
    FULL_SCALE,
    PictureSettings,
    Piece,
    PieceSettings,
    SoundSettings,
    read_pieces,
)
from mmstream.training.scenes import SPEECH
from mmstream.windows import HopCutter, HopSettings

_FRAME_SECS, _TOKEN_SECS = 0.04, 0.02
_N_COMPARED = 64


@torch.no_grad()
def _plain() -> Avp:
    """To which a token of sound and one of sight are alike if their numbers are; 20 ms a token."""
    model = avp_settings().model_dump()
    n = _N_COMPARED
    model["audio"] |= {"n_dims": n, "front_end": {"type": "log_mel", "n_hop": 160, "n_mels": 8}}
    model["events"] |= {"n_dims": n}
    model |= {"n_compared": n, "video": {"n_dims": n}, "fusion": {"type": "concat", "n_dims": n}}
    avp = Avp(type(avp_settings()).model_validate(model)).eval()
    for part in (avp.heard_at, avp.seen_at):
        assert isinstance(part, nn.Linear)
        part.weight.copy_(torch.eye(n))
        part.bias.zero_()
    return avp


def _tokens(values: Tensor, step_secs: float) -> Tokens:
    at_secs = (torch.arange(values.shape[1]) * step_secs).expand(len(values), -1)
    return Tokens(values, torch.ones(values.shape[:2], dtype=torch.bool), at_secs)


def _clips(delays: Sequence[int], seed: int = 0) -> tuple[Tokens, Tokens]:
    """[b] clips of 3 s; what is heard in each is so many frames later than what is seen.

    All tokens of a clip are at right angles to each other (as far as 64 numbers allow).
    """
    drawn = torch.randn(len(delays), 75, _N_COMPARED, generator=torch.Generator().manual_seed(seed))
    heard = [
        one.roll(late, 0).repeat_interleave(2, 0) for one, late in zip(drawn, delays, strict=True)
    ]
    return _tokens(torch.stack(heard), _TOKEN_SECS), _tokens(drawn, _FRAME_SECS)


@settings(max_examples=15)
@given(delays=st.lists(st.integers(-10, 10), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_offsets_are_found_exactly(delays: list[int], seed: int) -> None:
    sound, sight = _clips(delays, seed)
    assert matching.offsets(_plain(), sound, sight).tolist() == delays


def test_what_is_shifted_on_purpose_is_known() -> None:
    sound, sight = _clips([0, 2])
    found = matching.offsets(_plain(), sound, sight, late_secs=3 * _FRAME_SECS)
    assert found.tolist() == [0, 2]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> "list[tuple[Tokens, Tokens]]":
    """What clips are encoded to, batch by batch, instead of what is in them."""
    batches: list[tuple[Tokens, Tokens]] = []

    def encoded(_avp: Avp, batch: Sequence[Example]) -> tuple[Tokens, Tokens]:
        sound, sight = batches.pop(0)
        assert len(batch) == len(sound.values)
        return sound, sight

    monkeypatch.setattr(matching, "encoded", encoded)
    return batches


def _pairs(folder: Path, n: int) -> ExampleDataset:
    rng = np.random.default_rng(0)
    return world.examples(folder, "test", {f"{k}": (world.pair(rng), SPEECH) for k in range(n)})


def test_offsets_within_a_frame_are_counted(
    counted: "list[tuple[Tokens, Tokens]]", tmp_path: Path
) -> None:
    """In batches of 32 and 2; in the second the clips are shorter."""
    first = _clips([0] * 20 + [1, -1, 2, -2] + [9] * 8)
    second = [
        Tokens(one.values[:, :n], one.present[:, :n], one.at_secs[:, :n])
        for one, n in zip(_clips([1, -7], seed=1), (140, 70), strict=True)
    ]
    counted += [first, (second[0], second[1])]
    assert match(_plain(), _pairs(tmp_path, 34)).offset == pytest.approx(23 / 34)
    assert counted == []


def test_recall_is_the_mean_of_both_ways(
    counted: "list[tuple[Tokens, Tokens]]", tmp_path: Path
) -> None:
    """Each sound is as its own pictures, but for the first, which is as those of the second."""
    sound, sight = _clips([0] * 12)
    swapped = sound.values.clone()
    swapped[0] = sound.values[1] * 2  # as long as it is does not matter
    counted.append((Tokens(swapped, sound.present, sound.at_secs), sight))
    found = match(_plain(), _pairs(tmp_path, 12))
    # Of 24 questions two are hard: sound 0 has its pictures anywhere, and pictures 0 their sound.
    # Sounds 0 and 1 are as near to pictures 1: of equals none is nearer than one's own.
    assert found.recall_1 == pytest.approx(22 / 24)
    assert found.recall_1 <= found.recall_5 <= found.recall_10 <= 1
    assert found.n == 12


@settings(max_examples=20)
@given(data=st.data(), n=st.integers(1, 12))
def test_ranks_count_what_is_nearer(data: st.DataObject, n: int) -> None:
    rows = st.lists(st.integers(-3, 3), min_size=n, max_size=n)
    alike = data.draw(st.lists(rows, min_size=n, max_size=n))
    expected = [sum(one > row[own] for one in row) for own, row in enumerate(alike)]
    assert matching._ranks(torch.tensor(alike)).tolist() == expected  # noqa: SLF001 - counted


def test_chance_is_beaten_by_three_standard_errors() -> None:
    deviation = np.sqrt(CHANCE * (1 - CHANCE) / 100)
    told = Matched(n=100, offset=CHANCE, recall_1=0, recall_5=0, recall_10=0)
    assert not told.model_copy(update={"offset": CHANCE + 2.99 * deviation}).beats_chance
    assert told.model_copy(update={"offset": CHANCE + 3.01 * deviation}).beats_chance


def test_what_is_too_short_or_lacks_a_sense_is_no_pair(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pair = world.pair(rng)
    still = Piece(pair.sound, pair.heard, pair.pictures[:49], pair.at_ns[:49])
    brief = replace(pair, sound=pair.sound[:31_999], heard=np.array([[0, 31_999]]))
    named: dict[str, tuple[Piece, str | None]] = {
        "sound": (world.sound("bark", rng), "bark"),
        "still": (still, SPEECH),
        "brief": (brief, SPEECH),
        "silent": (world.silent(rng), None),
    }
    data = world.examples(tmp_path / "none", "test", named)
    assert pairs_of(data, fps=25) == []
    with pytest.raises(ConfigError, match="no example of the split has sound and pictures for 2 s"):
        match(tiny(avp_settings()), data)
    both = world.examples(tmp_path / "one", "test", {**named, "pair": (pair, None)})
    assert pairs_of(both, fps=25) == [4]


def test_training_times_windows_as_a_stream_does(data_dir: Path) -> None:
    """A clip as training encodes and cuts it, and hop by hop: one embedding for each window."""
    path = data_dir / "grid_s1" / "clips" / "bbaf2n.mp4"
    settings_ = PieceSettings(sound=SoundSettings(), pictures=PictureSettings(width=8, height=8))
    ((_, piece),) = read_pieces(path, [None], settings_)
    example = Example(
        index=0,
        annotation=Annotation("test"),
        sound=piece.sound.astype(np.float32) / np.float32(FULL_SCALE),
        heard=np.ones(len(piece.sound), np.bool_),
        pictures=piece.pictures,
        at_secs=(piece.at_ns / 1e9).astype(np.float32),
    )
    model = tiny(avp_settings())
    hops = _hops(path)
    told = said_by_stream(scorer_of(model), hops, 4)
    n_compared = 0
    with torch.no_grad():
        sound, sight = matching.encoded(model, [example])
        for hop, said in zip(hops, told, strict=True):
            end_secs = hop.span.end_ns / 1e9
            if hop.span.end_ns % 250_000_000 or end_secs * 16_000 > len(piece.sound):
                continue
            tokens: dict[Modality, Tokens] = {
                "audio": matching.within(model, sound, end_secs),
                "video": matching.within(model, sight, end_secs),
            }
            fused = model.fuse(tokens, torch.tensor([end_secs])).embedding
            expected = normalize(fused, dim=-1)[0].numpy()
            np.testing.assert_allclose(said.outputs[EMBEDDING].values[0], expected, atol=1e-3)
            n_compared += 1
    assert n_compared >= 10


def _hops(path: Path) -> list[Hop]:
    cutter = HopCutter(path.name, HopSettings(), live=False)
    reader = MediaFile(path.name, MediaSettings(url=str(path), pace="max"), ManualClock())
    hops: list[Hop] = []
    with reader.read() as items:
        for item in items:
            hops += cutter.push(item)
    return hops + list(cutter.flush())
