"""Why the room closes a socket.

| code | reason | what a client does |
|---|---|---|
| 1001, 1012 | the pusher stops | reconnect |
| 1009 | a frame longer than the room takes | do not send that again |
| 1011 | no answer to the server's ping | reconnect |
| 1013 | the thread cannot be opened just now | reconnect in a few seconds |
| 4000 | too slow: more waits for the socket than its buffer holds | reconnect |
| 4001 | the thread has as many sockets as it may have | reconnect later |
| 4002 | the thread was taken back, as by a restored backup | reconnect; `after` is then answered with `reset` |
| 4003 | the client's address has as many sockets as it may have | reconnect later |
| 4500 | whoever opened it may not read the thread any more, or is not known any more | do not reconnect as they are |
| 4501 | the credential with which it was opened is over | sign in again, then reconnect |

A socket that reads nothing at all cannot be told, and is cut off: its client sees 1006, which means the same. Whoever
reconnects with `after` and the last number it saw misses nothing. Codes from 4000 to 4499 mean "reconnect", those from
4500 to 4999 "do not, as you are".
"""

from enum import Enum


class Close(Enum):
    """Each with its code and its reason."""

    TRY_AGAIN_LATER = 1013, "The thread cannot be opened just now."
    SLOW = 4000, "Too slow; reconnect with after."
    THREAD_FULL = 4001, "The thread has as many sockets as it may have."
    TAKEN_BACK = 4002, "The thread was taken back; reconnect with after."
    ADDRESS_FULL = 4003, "Your address has as many sockets as it may have."
    NO_LONGER_ALLOWED = 4500, "You may not read this thread any more."
    SIGN_IN_AGAIN = 4501, "Sign in again."

    @property
    def code(self) -> int:
        return self.value[0]

    @property
    def reason(self) -> str:
        return self.value[1]


#: What else ends sockets, by the code with which the server does that.
_BY_SERVER = {1009: "too_long", 1011: "silent", 1012: "stopping"}
#: All that a socket's end is counted by. ``client``: it went, or broke off; ``error``: something went wrong here.
ENDS = (*(why.name.lower() for why in Close), *_BY_SERVER.values(), "client", "error")


def end_by(code: int) -> str:
    """What ended a socket that we did not close ourselves."""
    return _BY_SERVER.get(code, "client")


class Closed(Exception):
    """The socket is to be closed, for the reason in ``why``."""

    def __init__(self, why: Close) -> None:
        super().__init__(why.reason)
        self.why = why
