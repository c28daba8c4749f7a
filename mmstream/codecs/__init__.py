"""The one home of libav (PyAV): what leaves it are pictures, samples and their instants.

pictures  a decoded frame as an `Image`; pictures from arrays
sound     resampling and downmixing by capture time, once
demux     a file or URL opened, its packets put in order of time and decoded
"""

from mmstream.codecs.demux import Decoded, MediaInput, Picture, Sound, read_audio
from mmstream.codecs.pictures import CodedImage, PixelFormat, image_from_array
from mmstream.codecs.sound import CaptureResampler

__all__ = [
    "CaptureResampler",
    "CodedImage",
    "Decoded",
    "MediaInput",
    "Picture",
    "PixelFormat",
    "Sound",
    "image_from_array",
    "read_audio",
]
