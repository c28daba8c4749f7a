"""What people see of a moment: a picture with what was found in it, or how a sound looks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from mmstream.media import Box, Bytes, Floats

MAX_HZ: Final = 8000
"""The highest pitch that a spectrogram shows."""

_COLOUR: Final = (255, 196, 0)
"""Of what is drawn over a picture, in RGB."""
_DARK: Final = (0, 0, 0)
_LIGHT: Final = (255, 255, 255)
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_TEXT_SCALE: Final = 1 / 1100
"""Size of the text for each pixel of the picture's width."""
_LEAST_TEXT: Final = 0.4
_STROKE: Final = 1.5
"""Thickness of the strokes of a text for its size."""
_PAD: Final = 3
_MAX_TEXT: Final = 60
"""Characters."""

_WINDOW_SECS: Final = 0.025
_STEP_SECS: Final = 0.01
_N_MELS: Final = 80
_FLOOR: Final = 1e-6
_LEAST_RANGE: Final = math.log(1e4)
"""Brightness ends at the loudest band, or at this far above the floor: silence stays dark."""
_ASPECT: Final = 16 / 9


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to be drawn over a picture."""

    text: str
    """Empty: nothing is written."""
    box: Box | None = None
    """Where it is; None: somewhere."""


def marked(rgb: Bytes, marks: Sequence[Mark], *, footer: str = "") -> Bytes:
    """[h, w, 3] -> [h, w, 3], a copy: boxes with their text; texts without a box at the top.

    `footer` stands at the bottom on the left.
    """
    picture = rgb.copy()
    height, width = picture.shape[:2]
    _write(picture, footer, left=0, above=height, below=height, ink=_LIGHT, paper=_DARK)
    thickness = max(2, round(width / 320))  # colour is halved in a JPEG: one pixel pales
    edges = [(mark.text, _edges(mark.box, width, height)) for mark in marks if mark.box]
    for _, (left, top, right, bottom) in edges:
        cv2.rectangle(picture, (left, top), (right, bottom), _COLOUR, thickness)
    for text, (left, top, _, bottom) in edges:  # no box crosses a text
        _write(picture, text, left=left, above=top - thickness, below=bottom + thickness)
    line = 0
    for mark in marks:
        if mark.box is None:
            line += _write(picture, mark.text, left=0, above=0, below=line)
    return picture


def spectrogram(samples: Floats, *, rate_hz: int, width: int) -> Bytes:
    """[n] -> [h, width, 3]: log-mel energies, time to the right and pitch upwards; h = 9/16 width.

    At least one window of 25 ms; dark is 1e-6 and less, bright the loudest band.
    """
    import torch  # noqa: PLC0415 - seconds, and only who draws sound needs it

    from mmstream.features.audio import LogMel, LogMelSettings  # noqa: PLC0415 - likewise

    n_window = round(_WINDOW_SECS * rate_hz)
    settings = LogMelSettings(
        rate_hz=rate_hz,
        n_window=n_window,
        n_hop=round(_STEP_SECS * rate_hz),
        n_fft=2 ** (math.ceil(math.log2(n_window)) + 1),  # so fine that no band is left empty
        n_mels=_N_MELS,
        f_max_hz=min(MAX_HZ, rate_hz / 2),
        floor=_FLOOR,
    )
    padded = np.pad(samples, (0, max(0, n_window - samples.size)))
    bands = LogMel(settings)(torch.from_numpy(padded)).numpy()
    above = bands - math.log(_FLOOR)
    grey = np.clip(above / max(_LEAST_RANGE, float(above.max())) * 255, 0, 255).astype(np.uint8)
    size = (width, max(1, round(width / _ASPECT)))
    large = cv2.resize(np.flipud(grey.T), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.applyColorMap(large, cv2.COLORMAP_INFERNO)[:, :, ::-1], np.uint8).copy()


def _edges(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, in pixels."""
    left, top = round(box.x * (width - 1)), round(box.y * (height - 1))
    right = round((box.x + box.width) * (width - 1))
    bottom = round((box.y + box.height) * (height - 1))
    return left, top, right, bottom


def _write(
    picture: Bytes,
    text: str,
    *,
    left: int,
    above: int,
    below: int,
    ink: tuple[int, int, int] = _DARK,
    paper: tuple[int, int, int] = _COLOUR,
) -> int:
    """From `below` down or else from `above` up, all of it in the picture.

    Gives its height; 0 where there is nothing to write.
    """
    if not text:
        return 0
    height, width = picture.shape[:2]
    shown = text[:_MAX_TEXT].encode("ascii", "replace").decode()
    scale = max(_LEAST_TEXT, width * _TEXT_SCALE)
    stroke = max(1, round(scale * _STROKE))
    (text_width, text_height), descent = cv2.getTextSize(shown, _FONT, scale, stroke)
    full_width, full_height = text_width + 2 * _PAD, text_height + descent + 2 * _PAD
    left = max(0, min(left, width - full_width))
    top = below if below + full_height <= height or above < full_height else above - full_height
    top = max(0, min(top, height - full_height))
    corner = (left + full_width - 1, top + full_height - 1)
    cv2.rectangle(picture, (left, top), corner, paper, cv2.FILLED)
    place = (left + _PAD, top + _PAD + text_height)
    cv2.putText(picture, shown, place, _FONT, scale, ink, stroke, cv2.LINE_AA)
    return full_height
