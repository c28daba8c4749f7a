"""What identifies a checkpoint: a hash of its weights and configuration, taken without loading it.

Apart from `mmstream.models.checkpoint`, so that who only names a model need not load torch.
"""

import hashlib
from pathlib import Path
from typing import Final

from mmstream.errors import ScorerError

WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"


def content_id(config: bytes, weights: bytes) -> str:
    """16 hexadecimal digits: the same numbers have the same id wherever they lie."""
    digest = hashlib.sha256(hashlib.sha256(config).digest() + hashlib.sha256(weights).digest())
    return digest.hexdigest()[:16]


def id_of(folder: Path) -> str:
    """The id of the checkpoint in `folder`, as `checkpoint.read` gives it.

    Raises:
        ScorerError: one of its files cannot be read.
    """
    return content_id(read_bytes(folder / CONFIG), read_bytes(folder / WEIGHTS))


def read_bytes(path: Path) -> bytes:
    """All that is in a file of a checkpoint.

    Raises:
        ScorerError: it cannot be read; the text says why.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise ScorerError(msg) from None
