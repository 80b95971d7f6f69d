"""The HTTP door: takes messages in, tells what was said and what became of it."""

from services.gateway.app import gateway
from services.gateway.reading_along import ReadingAlong

__all__ = ["ReadingAlong", "gateway"]
