"""Why the room closes a socket.

| code | reason | what a client does |
|---|---|---|
| 1001, 1012 | the pusher stops | reconnect |
| 1009 | a frame longer than 64 KiB | do not send that again |
| 1011 | no answer to the server's ping | reconnect |
| 1013 | the thread cannot be opened just now | reconnect in a few seconds |
| 4000 | too slow: more waits for the socket than its buffer holds | reconnect and read the history |

Codes from 4000 to 4499 mean "reconnect"; from 4500 to 4999 they will mean "do not".
"""

TRY_AGAIN_LATER = 1013
SLOW = 4000
