"""The one place that loads torchaudio; the rest of mmstream takes it from here.

torchaudio's Linux wheel holds a compiled part that is linked against the CUDA libraries. Beside a
CPU build of torch, or one for another CUDA, it cannot load, and the whole import fails. Nothing
here needs it: filterbanks, DCT, MFCC, `kaldi.fbank` and resampling are plain Python over torch. So
when, and only when, the compiled part fails to load, a stand-in for `torchaudio._extension` is
registered that says "not built". torchaudio knows that state: what has a Python path (`lfilter`)
takes it, forced alignment raises.

Importing this module is enough for other libraries too, e.g. transformers' `ASTFeatureExtractor`.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import NoReturn


class _NotBuilt(ModuleType):
    """What `torchaudio._extension` holds where torchaudio was built without its compiled part."""

    _IS_TORCHAUDIO_EXT_AVAILABLE = False
    _IS_ALIGN_AVAILABLE = False

    @staticmethod
    def fail_if_no_align(function: Callable[..., object]) -> Callable[..., NoReturn]:
        """Decorate forced alignment so that calling it says what is missing."""

        def fail(*_args: object, **_keywords: object) -> NoReturn:
            msg = (
                f"torchaudio's {function.__name__} needs its compiled part, which cannot load here"
            )
            raise RuntimeError(msg)

        return fail

    @staticmethod
    def _check_cuda_version() -> None:
        """There is no CUDA code to disagree with torch's."""


def _ensure_importable() -> None:
    try:
        importlib.import_module("torchaudio._extension")
    except (OSError, RuntimeError):  # a library is missing; built for another CUDA than torch
        sys.modules["torchaudio._extension"] = _NotBuilt("torchaudio._extension")


_ensure_importable()

from torchaudio import functional, transforms  # noqa: E402 - not before the stand-in is there
from torchaudio.compliance import kaldi  # noqa: E402 - likewise

__all__ = ["functional", "kaldi", "transforms"]
