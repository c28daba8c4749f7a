"""A live URL opened quickly, with hardware where that is wanted; why it cannot be, in words."""

import errno
from collections.abc import Mapping
from typing import Final, Literal

import av
from av.codec import Codec
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Stream

from mmstream.clock import Clock
from mmstream.codecs.streams import CodedStream, choose_streams
from mmstream.errors import SourceError, mask_credentials
from mmstream.media import StreamKind, secs_to_ns

Transport = Literal["tcp", "udp"]
Decoder = Literal["auto", "cpu", "vaapi", "cuda"]

OPEN_SECS: Final = 5.0
"""How long a connection may take; FFmpeg looks at it only now and then."""
READ_SECS: Final = 12.0
"""How long nothing may come; longer than a segment of HLS."""
HARDWARE: Final = ("cuda", "vaapi")
"""In the order in which `auto` tries them."""
INTERRUPTED: Final = (av.error.ExitError, TimeoutError)
"""What FFmpeg says when it was told to stop waiting."""

_QUICK: Final = {"probesize": "32", "analyzeduration": "0"}
"""RTSP says in words what it will send: no need to look."""
_CAREFUL: Final = {"probesize": "1000000", "analyzeduration": "1000000"}
"""Bytes and microseconds; what is looked at is kept, and decoded too."""
_WORDS: Final[Mapping[type[Exception], str]] = {
    av.error.HTTPUnauthorizedError: "wrong credentials; allowed: those of a user that it knows",
    av.error.HTTPForbiddenError: "this user may not see it; allowed: credentials of one who may",
    av.error.HTTPNotFoundError: "there is no such stream; the host is right, the path is not",
    ConnectionRefusedError: "connection refused: nothing listens at that port",
    av.error.ProtocolNotFoundError: "this FFmpeg does not speak that protocol",
    av.error.InvalidDataError: "it sends no video or sound that FFmpeg reads",
}


def open_live(
    url: str, transport: Transport, accel: HWAccel | None, clock: Clock
) -> InputContainer:
    """Open it, with no more looking at what it sends than is needed.

    Raises:
        SourceError: it cannot be opened; without credentials.
    """
    is_rtsp = url.lower().startswith(("rtsp:", "rtsps:"))
    options = {"rtsp_transport": transport} if is_rtsp else {}
    shown = mask_credentials(url)
    began_ns = clock.monotonic_ns()
    try:
        if is_rtsp:
            container = _open(url, options | _QUICK, accel)
            if all(map(_is_known, container.streams)):
                return container
            container.close()
        return _open(url, options | _CAREFUL, accel)
    except (av.FFmpegError, OSError) as error:
        why = _why(error, clock.monotonic_ns() - began_ns)
        msg = f"{shown}: cannot be opened: {why}"
        raise SourceError(msg) from None  # FFmpeg's error holds the URL as it is


def _open(url: str, options: dict[str, str], accel: HWAccel | None) -> InputContainer:
    return av.open(
        url,
        mode="r",
        container_options=options,
        metadata_errors="replace",
        timeout=(OPEN_SECS, READ_SECS),
        hwaccel=accel,
    )


def _is_known(stream: Stream) -> bool:
    """Whether a decoder can start with what is known of it; pictures tell their size themselves."""
    if stream.type != "audio":
        return True
    context = stream.codec_context
    return context is not None and bool(getattr(context, "sample_rate", 0))


def _why(error: av.FFmpegError | OSError, waited_ns: int) -> str:
    """In words."""
    if waited_ns >= secs_to_ns(OPEN_SECS) or isinstance(error, INTERRUPTED):
        return f"no answer within {OPEN_SECS:g} s"  # whatever FFmpeg makes of being interrupted
    for kind, text in _WORDS.items():
        if isinstance(error, kind):
            return text
    hint = "; is the host's name right?" if error.errno == errno.EIO else ""
    return f"{error.strerror}{hint}"


def accelerator(decoder: Decoder) -> HWAccel | None:
    """Hardware that opens; None: there is none, and none was asked for by name."""
    if decoder == "cpu":
        return None
    for name in HARDWARE if decoder == "auto" else (decoder,):
        try:
            HWAccel(name).create(Codec("h264", "r"))
        except (av.FFmpegError, NotImplementedError):
            continue
        return HWAccel(name, allow_software_fallback=True)
    if decoder == "auto":
        return None
    msg = f"decoder {decoder}: not to be had on this machine; allowed: auto, cpu"
    raise SourceError(msg)


def choose_decodable(
    container: InputContainer, wanted: Mapping[StreamKind, int | None], shown: str
) -> tuple[dict[StreamKind, CodedStream], tuple[str, ...]]:
    """What there is; and, in words, what nobody asked for by number and cannot be decoded."""
    chosen: dict[StreamKind, CodedStream] = {}
    missing: list[str] = []
    for kind, nth in wanted.items():
        try:
            chosen |= choose_streams(container, {kind: nth}, shown)
        except SourceError as error:
            if nth is not None:
                raise
            if any(each.type == kind and not _is_decodable(each) for each in container.streams):
                missing.append(str(error))
    if not chosen:
        raise SourceError("; ".join(missing) or f"{shown}: holds no {' and no '.join(wanted)}")
    return chosen, tuple(missing)


def _is_decodable(stream: Stream) -> bool:
    """PyAV leaves the context out where it knows no decoder, which its types do not say."""
    return getattr(stream, "codec_context", None) is not None


def refuse_software(video: CodedStream, decoder: Decoder, shown: str) -> None:
    """Raise a `SourceError` if the hardware asked for does not decode this."""
    context = video.codec_context
    if not context.is_hwaccel:
        msg = f"{shown}: {decoder} does not decode {context.name}; allowed: decoder: auto or cpu"
        raise SourceError(msg)
