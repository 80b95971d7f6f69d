"""A stand-in for a model: an OpenAI-compatible server whose replies say that it is a demo."""

from services.demo_model.app import demo_model

__all__ = ["demo_model"]
