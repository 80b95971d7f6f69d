"""Writes every message into the dialogue table, then announces it."""

from services.recorder.recording import recorder

__all__ = ["recorder"]
