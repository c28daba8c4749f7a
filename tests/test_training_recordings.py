"""What is kept of a span, against the recordings themselves."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media_factory import Sound, Video, write_media
from recordings import read_sound

from mmstream.errors import SourceError
from mmstream.features.audio import LogMel, LogMelSettings
from mmstream.media import NS_PER_SEC, Span, secs_to_ns
from mmstream.training import recordings
from mmstream.training.recordings import (
    FULL_SCALE,
    PictureSettings,
    Piece,
    PieceSettings,
    SoundSettings,
    digest_of,
    measure,
    read_pieces,
)

CLIP = "grid_s1/clips/bbaf2n.mp4"
GREY = np.full((32, 32, 3), 90, np.uint8)
BOTH = PieceSettings(sound=SoundSettings(), pictures=PictureSettings(width=40, height=30))


def pieces(path: Path, spans: list[Span | None], settings: PieceSettings) -> list[Piece]:
    read = dict(read_pieces(path, spans, settings))
    assert sorted(read) == list(range(len(spans)))
    return [read[nth] for nth in range(len(spans))]


def test_a_span_is_a_cut_of_the_whole(data_dir: Path) -> None:
    spans = [Span(secs_to_ns(start), secs_to_ns(start + 0.5)) for start in (2.0, 0.3, 0.4)]
    whole, *cuts = pieces(data_dir / CLIP, [None, *spans], BOTH)
    assert whole.pictures.shape == (75, 30, 40, 1)
    for span, cut in zip(spans, cuts, strict=True):
        first = round(span.start_ns * 16_000 / NS_PER_SEC)
        assert np.array_equal(cut.sound, whole.sound[first : first + 8000])
        assert cut.heard.tolist() == [[0, 8000]]
        inside = (whole.at_ns >= span.start_ns) & (whole.at_ns < span.end_ns)
        assert np.array_equal(cut.at_ns + span.start_ns, whole.at_ns[inside])
        assert np.array_equal(cut.pictures, whole.pictures[inside])


def test_sound_is_that_of_the_recording_beyond_full_scale_too(data_dir: Path) -> None:
    (piece,) = pieces(data_dir / CLIP, [None], PieceSettings(sound=SoundSettings()))
    true = read_sound(data_dir / CLIP)
    assert np.abs(true).max() > 1.4
    assert np.abs(piece.sound / FULL_SCALE - true[: len(piece.sound)]).max() <= 1 / FULL_SCALE
    assert len(piece.pictures) == 0


def test_log_mel_is_that_of_the_span_alone(data_dir: Path) -> None:
    log_mel = LogMelSettings(n_mels=64)
    settings = PieceSettings(sound=SoundSettings(log_mel=log_mel))
    (piece,) = pieces(data_dir / CLIP, [Span(NS_PER_SEC, 2 * NS_PER_SEC)], settings)
    true = LogMel(log_mel)(torch.from_numpy(read_sound(data_dir / CLIP)[16_000:32_000].copy()))
    assert piece.sound.shape == (98, 64)
    assert piece.heard.tolist() == [[0, 98]]
    assert np.abs(piece.sound - true.numpy()).max() < 0.01


@pytest.mark.parametrize(("fps", "n_seen"), [(25, 25), (5, 5), (30, 25)])
def test_pictures_are_thinned(data_dir: Path, fps: int, n_seen: int) -> None:
    settings = PieceSettings(pictures=PictureSettings(fps=fps, colour="rgb"))
    (piece,) = pieces(data_dir / CLIP, [Span(NS_PER_SEC, 2 * NS_PER_SEC)], settings)
    assert piece.pictures.shape == (n_seen, 64, 64, 3)
    assert np.abs(np.diff(piece.at_ns) - NS_PER_SEC // min(fps, 25)).max() <= 40_000_000
    assert len(piece.sound) == 0


def test_what_is_not_there_has_no_rows(data_dir: Path) -> None:
    silent = data_dir / "av_clips/pe_dog_noaudio.mp4"
    blind = data_dir / "esc10/audio/1-100032-A-0.ogg"
    (seen,), (heard,) = pieces(silent, [None], BOTH), pieces(blind, [None], BOTH)
    assert (len(seen.sound), len(seen.heard), len(seen.pictures)) == (0, 0, 125)
    assert len(heard.pictures) == 0
    assert abs(len(heard.sound) - 5 * 16_000) < 800


def test_sound_that_ends_early_is_masked(tmp_path: Path) -> None:
    path = tmp_path / "early.mkv"
    pictures = [np.full((32, 32, 3), 90, np.uint8)] * 50
    tone = np.sin(np.arange(16_000) * 0.1).astype(np.float32)
    write_media(path, Video(pictures), Sound(tone, "pcm_s16le", 16_000))
    (piece,) = pieces(path, [Span(NS_PER_SEC // 2, 3 * NS_PER_SEC // 2)], BOTH)
    assert piece.heard.tolist() == [[0, 8000]]
    assert not piece.sound[8000:].any()
    measured = measure(path, 10 * NS_PER_SEC)
    assert measured.kinds == {"audio", "video"}
    assert abs(measured.end_ns - 2 * NS_PER_SEC) <= 40_000_000


def test_a_recording_whose_stamps_begin_anew_is_as_long_as_its_replay(tmp_path: Path) -> None:
    part, whole = tmp_path / "part.ts", tmp_path / "whole.ts"
    tone = np.sin(np.arange(32_000) * 0.1).astype(np.float32)
    write_media(part, Video([GREY] * 50), Sound(tone, rate_hz=16_000))
    whole.write_bytes(3 * part.read_bytes())
    assert abs(measure(whole, secs_to_ns(5.5)).end_ns - secs_to_ns(6)) < secs_to_ns(0.2)
    (piece,) = pieces(whole, [Span(secs_to_ns(4.5), secs_to_ns(5.5))], BOTH)
    assert (piece.heard.tolist(), len(piece.pictures)) == ([[0, 16_000]], 25)


def one_after_the_other(path: Path, *tracks: Video | Sound) -> Path:
    """Not interleaved."""
    with av.open(str(path), "w") as container:
        for packets in [track.add_to(container) for track in tracks]:
            for packet in packets:
                container.mux(packet)
    return path


def test_streams_that_are_far_apart_in_the_file_are_refused(tmp_path: Path) -> None:
    seen = Video([GREY] * 25 * 25)
    heard = Sound(np.full(25 * 16_000, 0.5, np.float32), "pcm_s16le", 16_000)
    path = one_after_the_other(tmp_path / "apart.mkv", seen, heard)
    with pytest.raises(SourceError, match=r"apart\.mkv: sound and pictures of one time lie more"):
        measure(path, 0)
    with pytest.raises(SourceError, match="lie more than 10 s apart"):
        pieces(path, [Span(0, NS_PER_SEC), Span(0, 20 * NS_PER_SEC)], BOTH)
    # Who wants one of them only misses nothing.
    (one,) = pieces(path, [Span(0, NS_PER_SEC)], PieceSettings(pictures=PictureSettings()))
    assert len(one.pictures) == 25


def test_a_recording_is_looked_into_once_until_it_changes(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    shutil.copy(data_dir / CLIP, path)
    before = measure(path, 0)
    opened: list[Path] = []

    def noted(path: Path) -> str:
        opened.append(path)
        return digest_of(path)

    monkeypatch.setattr(recordings, "digest_of", noted)
    assert measure(path, 0) == before
    assert not opened
    shutil.copy(data_dir / "grid_s1/clips/bbaf3s.mp4", path)
    assert measure(path, 0).digest != before.digest
    assert opened == [path]


def test_no_media_is_refused(data_dir: Path) -> None:
    with pytest.raises(SourceError, match=r"MANIFEST\.tsv"):
        measure(data_dir / "MANIFEST.tsv", 0)
