"""Answers what is said in the room, with an LLM."""

from services.agent.model import Model, open_model
from services.agent.trial import first_text, known_models
from services.agent.worker import agent

__all__ = ["Model", "agent", "first_text", "known_models", "open_model"]
