"""Answers what is said in the room, with an LLM."""

from services.agent.model import Model, open_model
from services.agent.worker import agent

__all__ = ["Model", "agent", "open_model"]
