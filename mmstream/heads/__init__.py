"""Heads turn scores into messages: events here, captions later."""
