"""Speech to text, and pictures to sentences, beside the worker: what takes longer than a hop."""
