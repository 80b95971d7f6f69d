"""The HTTP door: takes messages in, tells what was said and what became of it."""

from services.gateway.app import gateway

__all__ = ["gateway"]
