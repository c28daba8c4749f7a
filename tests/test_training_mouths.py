"""The mouth that is found in real faces, and what is cut out."""

import csv
from pathlib import Path

import numpy as np
import pytest
from recordings import read_frames

from mmstream.media import Bytes, Span, secs_to_ns
from mmstream.training.mouths import MouthFinder, cut_square
from mmstream.training.recordings import PictureSettings, Piece, PieceSettings, read_pieces

S1 = "grid_s1/clips/bbaf2n.mp4"
WORD = Span(secs_to_ns(1.465), secs_to_ns(2.065))


def lumas(path: Path) -> list[Bytes]:
    return [frame.image.luma for frame in read_frames(path)[::15]]


def mouth_piece(path: Path, span: Span, colour: str = "luma") -> Piece:
    pictures = PictureSettings.model_validate({"part": "mouth", "colour": colour})
    ((_, piece),) = read_pieces(path, [span], PieceSettings(pictures=pictures))
    return piece


def test_the_mouth_of_every_speaker_is_found(data_dir: Path) -> None:
    folder = data_dir / "grid_speakers"
    with (folder / "labels.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    there = [row for row in rows if (folder / row["file"]).is_file()]
    assert len(there) >= 6
    for row in there:
        square = MouthFinder().find(lumas(folder / row["file"]))
        assert square is not None
        by_eye = (float(row["mouth_x"]), float(row["mouth_y"]))
        assert np.abs(square[:2] - by_eye).max() <= 16, row["file"]
        assert 60 <= square[2] <= 90


@pytest.mark.parametrize("by", [(-9, 5), (12, -8)])
def test_it_moves_with_the_head(data_dir: Path, by: tuple[int, int]) -> None:
    pictures = lumas(data_dir / S1)
    moved = [np.roll(one, by, axis=(1, 0)) for one in pictures]
    before, after = MouthFinder().find(pictures), MouthFinder().find(moved)
    assert before is not None
    assert after is not None
    assert np.abs(after[:2] - before[:2] - by).max() <= 5


def test_a_cut_is_a_slice_and_the_edge_goes_on() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    inside = cut_square(pixels, np.array((20.0, 16.0, 8.0)), width=8, height=8)
    assert np.array_equal(inside, pixels[12:20, 16:24])
    corner = cut_square(pixels, np.array((0.0, 0.0, 8.0)), width=8, height=8)
    assert np.array_equal(corner[4:, 4:], pixels[:4, :4])
    assert (corner[:4, :4] == pixels[0, 0]).all()


def test_a_piece_holds_the_mouth_at_the_instants_of_the_whole(data_dir: Path) -> None:
    mouth = mouth_piece(data_dir / S1, WORD)
    ((_, whole),) = read_pieces(data_dir / S1, [WORD], PieceSettings(pictures=PictureSettings()))
    assert mouth.pictures.shape == (15, 64, 64, 1)
    assert np.array_equal(mouth.at_ns, whole.at_ns)
    assert mouth_piece(data_dir / S1, WORD, "rgb").pictures.shape == (15, 64, 64, 3)
    # A mouth that speaks changes more than the face that it is in.
    assert mouth.pictures.std(axis=0).mean() > 1.5 * whole.pictures.std(axis=0).mean()


def test_where_there_is_no_face_there_are_no_pictures(data_dir: Path) -> None:
    road = data_dir / "surveillance/highway_day.avi"
    piece = mouth_piece(road, Span(0, secs_to_ns(0.4)))
    assert piece.pictures.shape == (0, 64, 64, 1)
    assert len(piece.at_ns) == 0
