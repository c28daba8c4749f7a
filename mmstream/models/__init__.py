"""Networks: encoders of sound, pictures and words, their fusions, heads, checkpoints."""

import mmstream.features.audio  # noqa: F401 - before transformers imports a torchaudio that cannot
