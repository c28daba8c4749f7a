"""How long a recording is, without decoding it."""

from pathlib import Path
from typing import Final

import av

from mmstream.errors import SourceError, mask_credentials

_NS_PER_TICK: Final = 1000
"""FFmpeg counts the length of a container in microseconds."""


def length_ns(url: str) -> int | None:
    """From the first instant of a recording to its end, as its container says; None: it does not.

    Raises:
        SourceError: it is missing, or nothing that FFmpeg reads.
    """
    place = url if "://" in url else str(Path(url).expanduser())
    try:
        with av.open(place, mode="r", metadata_errors="replace") as container:
            return None if container.duration is None else container.duration * _NS_PER_TICK
    except (av.FFmpegError, OSError) as error:
        msg = f"{mask_credentials(url)}: cannot be opened: {error.strerror}"
        raise SourceError(msg) from None
