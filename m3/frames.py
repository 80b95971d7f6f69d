"""What the doors show of a thread, one JSON object a frame: sockets get it as text, event streams as data."""

import json
from collections.abc import Iterator
from uuid import UUID

from m3.events import Message, MessageRecorded, ReplyGrew, ThreadEvent, TurnNews, TurnStarted
from m3.tenants import thread_id_of

Frame = dict[str, object]


def text(frame: Frame) -> str:
    """On one line, whatever is in it."""
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


def new_message(message: Message) -> Frame:
    """The predecessor's frame, with the message's numbers added, and its author where it is known. One that could not
    be read is ``sealed``."""
    frame: Frame = {
        "type": "new_message",
        "thread_id": thread_id_of(message.thread_id),
        "role": message.role,
        "content": message.content,
        "source": message.source,
        "timestamp": message.timestamp.timestamp(),
        "id": message.id,
        "seq": message.seq,
        "message_id": str(message.message_id),
        "in_reply_to": [str(answered) for answered in message.in_reply_to],
    }
    if message.author is not None:
        frame["author"] = message.author
    return frame | {mark: True for mark in ("cancelled", "sealed") if getattr(message, mark)}


def fates(event: ThreadEvent) -> Iterator[Frame]:
    """What the event decides. A reply is the fate of what it answers, and has the number."""
    message = event.message
    if isinstance(event, MessageRecorded):
        for answered in message.in_reply_to:
            yield _fate(
                message.thread_id, answered, fate="answered", reply_id=message.message_id, reply_seq=message.seq
            )
    else:
        yield fate(message)


def fate(message: Message) -> Frame:
    """What became of the message. One that was changed since it was recorded has a number of the change."""
    return _fate(
        message.thread_id,
        message.message_id,
        number=message.rev if message.rev > message.seq else None,
        fate=message.fate,
        reply_id=message.reply_id,
        reply_seq=message.reply_seq,
        reason=message.reason,
    )


def _fate(key: str, message_id: UUID, *, reply_id: UUID | None, **what: object) -> Frame:
    known = {"message_id": str(message_id), "reply_id": reply_id and str(reply_id)} | what
    order = ("message_id", "number", "fate", "reply_id", "reply_seq", "reason")
    told = {name: known[name] for name in order if known.get(name) is not None}
    return {"type": "fate", "thread_id": thread_id_of(key), **told}


def turn_news(event: TurnNews) -> Frame:
    """What the agent does just now: ``turn`` frames for the start and the end, ``delta`` frames for what it says."""
    turn: Frame = {
        "thread_id": thread_id_of(event.thread_id),
        "turn_id": str(event.turn_id),
        "reply_id": str(event.reply_id),
    }
    if isinstance(event, TurnStarted):
        in_reply_to = [str(message_id) for message_id in event.in_reply_to]
        return {"type": "turn", "state": "started", **turn, "in_reply_to": in_reply_to}
    if isinstance(event, ReplyGrew):
        pieces = {"pieces": event.pieces} if event.pieces > 1 else {}
        return {"type": "delta", **turn, "index": event.index, **pieces, "content": event.text}
    ended = {"type": "turn", "state": "ended", **turn, "outcome": event.outcome}
    return ended if event.reason is None else ended | {"reason": event.reason}


def recorded(message: Message) -> Frame:
    return {"type": "recorded", "message_id": str(message.message_id), "seq": message.seq, "id": message.id}
