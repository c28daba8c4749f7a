"""Cameras, microphones, recordings and scenes: everything that yields `MediaItem`s."""
