"""Networks: encoders of sound, pictures and words, their fusions, heads, checkpoints."""
