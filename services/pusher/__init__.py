"""Holds the WebSocket connections and pushes each thread's messages to its sockets."""

from services.pusher.app import pusher
from services.pusher.entrance import Entrance
from services.pusher.hub import Hub

__all__ = ["Entrance", "Hub", "pusher"]
