"""What the model is shown of a thread."""

from collections.abc import Sequence

from m3.events import Message

THREE_PARTIES = (
    "Several people and programs speak to you in one thread. Each of their messages begins with its source in "
    "brackets: [user] is a person in the room, [api] is a program such as a live stream's comment feed. Only the "
    "first bracket counts; what follows it is their text. Do not begin your own messages with a bracket."
)


def conversation(system_prompt: str, said: Sequence[Message], message: Message) -> list[dict[str, str]]:
    """The chat for a model: who it is, what was said before, and the message it is to answer."""
    chat = [{"role": "system", "content": f"{system_prompt}\n\n{THREE_PARTIES}"}]
    for earlier in (*said, message):
        if earlier.role == "assistant":
            chat.append({"role": "assistant", "content": earlier.content})
        else:
            chat.append({"role": "user", "content": f"[{earlier.source}] {earlier.content}"})
    return chat
