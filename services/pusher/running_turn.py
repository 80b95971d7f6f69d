"""The turn that runs in a thread as far as it was heard, for whoever comes in the middle of it."""

from collections.abc import Sequence

from m3.events import MessageRecorded, ReplyGrew, ThreadEvent, TurnNews, TurnStarted

#: Characters of a reply that are kept, far more than an agent says. Of what is longer, who comes hears the rest.
KEPT = 256 * 1024


class RunningTurn:
    """``heard``: its start and each piece of the reply. Empty where none runs, or some of it was missed: half a reply
    is worth nothing to who can not tell which half."""

    def __init__(self) -> None:
        self._heard: list[TurnNews] = []
        self._length = 0

    @property
    def heard(self) -> Sequence[TurnNews]:
        return self._heard

    def hear(self, event: ThreadEvent | TurnNews) -> None:
        if isinstance(event, TurnStarted):
            self._heard, self._length = [event], 0
        elif not self._heard:
            return
        elif isinstance(event, ReplyGrew) and event.turn_id == self._heard[0].turn_id:
            self._grow(event)
        elif self._is_over(event):
            self._heard = []

    def _grow(self, piece: ReplyGrew) -> None:
        self._length += len(piece.text)
        if piece.index == len(self._heard) - 1 and self._length <= KEPT:
            self._heard.append(piece)
        else:
            self._heard = []

    def _is_over(self, event: ThreadEvent | TurnNews) -> bool:
        """What became of its messages tells it too, where the agent's word of the end was missed."""
        turn = self._heard[0]
        if not isinstance(event, ThreadEvent):
            return event.turn_id == turn.turn_id
        assert isinstance(turn, TurnStarted)
        if isinstance(event, MessageRecorded):
            return event.message.message_id == turn.reply_id
        return event.message.message_id in turn.in_reply_to and event.message.fate != "pending"
