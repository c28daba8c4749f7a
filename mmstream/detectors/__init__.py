"""Detectors that work with no download: each a settings class that is its spec, and a scorer."""
