"""Answers what is said in the room, with an LLM."""

from services.agent.worker import agent
from services.agent.model import Model, open_model

__all__ = ["Model", "agent", "open_model"]
