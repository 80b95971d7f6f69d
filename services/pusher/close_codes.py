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

A socket that reads nothing at all cannot be told, and is cut off: its client sees 1006, which means the same. Whoever
reconnects with `after` and the last number it saw misses nothing. Codes from 4000 to 4499 mean "reconnect";
from 4500 to 4999 they will mean "do not".
"""

from typing import NamedTuple


class Close(NamedTuple):
    code: int
    reason: str


TRY_AGAIN_LATER = Close(1013, "The thread cannot be opened just now.")
SLOW = Close(4000, "Too slow; reconnect with after.")
THREAD_FULL = Close(4001, "The thread has as many sockets as it may have.")
TAKEN_BACK = Close(4002, "The thread was taken back; reconnect with after.")
