"""What is said, kept so that only who has the room's keys can read it; and what it is found by."""

from m3.sealing.content import UNREADABLE, Content
from m3.sealing.masters import Masters, WrappedKey
from m3.sealing.terms import unpacked, words

__all__ = ["UNREADABLE", "Content", "Masters", "WrappedKey", "unpacked", "words"]
