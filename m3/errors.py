"""Every error that one part of the room raises for another to handle.

M3Error
├── StartError          the room cannot start; its text is the sentence shown to the person who started it
├── UndecodableEvents   a body on the bus that is not a list of known events
├── Unreadable          what was sealed does not open: with another key, or it was changed
├── Unreached           a server that was looked at will not have us, and why
├── BusError
│   ├── BusUnavailable  the broker is away; whether the publish arrived is unknown
│   ├── BusFull         the broker refused the publish; nothing was kept
│   ├── Unroutable      no queue is there to take a publish that must arrive; nothing was kept
│   └── Interrupted     a subscription was away for a moment and may have missed something
├── StoreError
│   ├── StoreUnavailable  the database is away; whether the command was carried out is unknown
│   └── Unstorable        the database will never take this; trying again is pointless
├── IssuerUnavailable   who vouches for people is away, and whether a token is good cannot be told
├── Denied
│   ├── NotSignedIn     nobody knows who asks, or what they show is not good any more
│   │   └── Expired     what they show was good for a time, which is over
│   ├── Forbidden       who asks is known, and may not do this
│   ├── WrongPassword   who asks is known, and does not know the password that must be told besides
│   ├── PasswordChangeNeeded  who asks has a password for one sign-in, and must choose another
│   ├── UnknownThread   there is no such thread, or none that who asks may know of
│   ├── NotInvited      what they show is no invite, or not good any more
│   ├── TooOften        who asks did so too often; later it is taken
│   └── TooManySignIns  so many sign in at once that no more can be looked at; later it is taken
├── Unchanged           who asks may do this, and it cannot be done
│   ├── UnknownName     there is nobody of that name, and no key or invite of that prefix
│   ├── NoMember        who is to be another kind of member is none (any more)
│   ├── Taken           there is one of that name already
│   ├── TooManyInvites  a thread has as many that are good as it may have
│   ├── LastOwner       a thread must keep an owner
│   ├── LastOperator    a tenant must keep an operator
│   └── Unsuitable      a name, a password or a role that cannot be given
└── NotTaken
    ├── MessageTooLong  longer than the room takes; it was not handed in
    ├── ThreadFlooded   too many messages of programs wait in its thread; it was not handed in
    ├── KeyReused       its sender gave the same key to another message before; that one stands
    ├── UnknownMessage  there is no message of the id that was given
    ├── NotRetryable    it is asked for again, though it neither failed nor was cancelled
    └── NotRecorded     it was not recorded in time; it may be recorded later
"""

import ssl
from math import ceil
from socket import gaierror
from typing import Literal
from uuid import UUID

#: What is in the way to a server: ``url`` is no address of one; ``name`` nobody knows; it is ``away``, or ``silent``;
#: it speaks another kind of ``tls``; it refuses the ``key``, which may be a password; it has no such ``place``, as a
#: virtual host, a database or a model; it is ``busy``; a ``pooler`` answers in its place.
Obstacle = Literal["url", "name", "away", "silent", "tls", "key", "place", "busy", "pooler", "other"]


class M3Error(Exception):
    """The root; its text is a sentence for a person, its ``code`` is for programs and stays as it is."""

    code = "internal_error"


class StartError(M3Error):
    """The room cannot start, and the text says what to do about it."""


class UndecodableEvents(M3Error):
    """The bytes are not a list of known events. They belong in the dead-letter queue."""


class Unreadable(M3Error):
    """What was sealed does not open here. The text says why, and nothing of what is in it."""


class Unreached(M3Error):
    """A server that was to be looked at; the text is what it or the system says of it, without a secret."""

    def __init__(self, sentence: str, obstacle: Obstacle) -> None:
        super().__init__(sentence)
        self.obstacle = obstacle

    @classmethod
    def because_of(cls, error: BaseException) -> "Unreached":
        """What an error of the connection means. A library may have made it of the system's own, which says more."""
        cause = error.__cause__ or error.__context__
        while cause is not None:
            error = cause if isinstance(cause, OSError) else error
            cause = cause.__cause__ or cause.__context__
        match error:
            case gaierror():
                return cls("The name of its host is not known.", "name")
            case ssl.SSLError():
                return cls(f"TLS failed: {error.reason or 'the connection broke off'}.", "tls")
            case TimeoutError():
                return cls("It does not answer.", "silent")
            case ConnectionRefusedError():
                return cls("Nobody listens there.", "away")
            case OSError():
                return cls(f"It cannot be reached: {error.strerror or error}.", "away")
            case _:
                return cls(f"It answered otherwise than expected ({type(error).__name__}).", "other")


class BusError(M3Error):
    """Publishing or receiving went wrong."""

    code = "broker_unavailable"


class BusUnavailable(BusError):
    """The broker is away or did not answer in time. The publish may have arrived: retry with the same id."""


class BusFull(BusError):
    """A queue is at its length limit and refused the publish. Retry later."""

    code = "overloaded"


class Unroutable(BusError):
    """The publish must reach a queue and none is bound."""


class Interrupted(BusError):
    """A subscription was rebuilt, or did not keep up. What it missed is lost to it: look in the table."""


class StoreError(M3Error):
    """The database went wrong."""

    code = "database_unavailable"


class StoreUnavailable(StoreError):
    """The database is away or did not answer in time. Retry with the same ids."""


class Unstorable(StoreError):
    """The database refuses these values for good."""

    code = "invalid_request"


class IssuerUnavailable(M3Error):
    """The outside issuer of a token is away, and its keys are needed. Retry later."""

    code = "issuer_unavailable"


class Denied(M3Error):
    """Somebody may not do what they ask for."""


class NotSignedIn(Denied):
    """What came with the request does not tell who asks, or is not good any more."""

    code = "not_signed_in"


class Expired(NotSignedIn):
    """The time is over for which what came with the request was good."""

    def __init__(self) -> None:
        super().__init__("Sign in again.")


class Forbidden(Denied):
    """Who asks may not do this here, and knows that it is there."""

    code = "forbidden"


class WrongPassword(Denied):
    """The password that must be told besides is not the account's."""

    code = "wrong_password"

    def __init__(self) -> None:
        super().__init__("The password is wrong.")


class PasswordChangeNeeded(Denied):
    """The password was right, and good for nothing but to choose another."""

    code = "password_change_needed"

    def __init__(self) -> None:
        super().__init__("This password is for one sign-in. Choose another: send it as new_password too.")


class UnknownThread(Denied):
    """There is no such thread, as far as who asks may know."""

    code = "not_found"

    def __init__(self) -> None:
        super().__init__("There is no such thread.")


class NotInvited(Denied):
    """There is no such invite, it is not good any more, or it is another tenant's, which are told alike."""

    code = "not_found"

    def __init__(self) -> None:
        super().__init__("The invite is not good (any more).")


class TooOften(Denied):
    """It was asked for too often. ``what``: many of these; ``limit``: so many there may be in ``window`` seconds, or at
    once where that is 0; in ``retry_after`` seconds they are taken again."""

    code = "rate_limited"

    def __init__(self, what: str, limit: int, window: float, retry_after: float) -> None:
        most = f"at most {limit} {f'in {window:g} seconds' if window else 'at once'}"
        super().__init__(f"Too many {what}, {most}; try again in {max(1, ceil(retry_after))} s.")
        self.limit = limit
        self.window = window
        self.retry_after = retry_after


class TooManySignIns(Denied):
    """So many passwords wait to be looked at that no more are taken. Retry later."""

    code = "overloaded"

    def __init__(self) -> None:
        super().__init__("Too many sign in at once; try again later.")


class Unchanged(M3Error):
    """Who may do what was to be changed, and cannot be changed so."""


class UnknownName(Unchanged):
    """There is nobody, or nothing, of that name."""

    code = "not_found"


class NoMember(Unchanged):
    """Who is to be another kind of member of the thread is no member of it, or not any more."""

    code = "no_member"

    def __init__(self) -> None:
        super().__init__("There is no member of that name (any more).")


class Taken(Unchanged):
    """The name is another's."""

    code = "taken"


class TooManyInvites(Unchanged):
    """The thread has as many invites that are good as it may have."""

    code = "too_many_invites"

    def __init__(self, most: int) -> None:
        super().__init__(f"A thread has at most {most} invites at a time; take one back, or wait until one expires.")


class LastOwner(Unchanged):
    """Nobody would own the thread."""

    code = "last_owner"

    def __init__(self) -> None:
        super().__init__("A thread must keep an owner.")


class LastOperator(Unchanged):
    """Nobody could let others in."""

    code = "last_operator"

    def __init__(self) -> None:
        super().__init__("A tenant must keep an operator.")


class Unsuitable(Unchanged):
    """A name, a password or a role that cannot be given."""

    code = "invalid_request"


class NotTaken(M3Error):
    """A message from outside did not come through the door."""


class MessageTooLong(NotTaken):
    """The message is longer than the room takes; nothing was handed in."""

    code = "message_too_long"


class ThreadFlooded(NotTaken):
    """So many messages of programs wait in the thread that no more are taken; nothing was handed in. Retry later."""

    code = "thread_flooded"


class KeyReused(NotTaken):
    """The key stands for another message already, which this one is not. Nothing was kept of it."""

    code = "key_reused"


class UnknownMessage(NotTaken):
    """There is no such message, or none yet."""

    code = "not_found"


class NotRetryable(NotTaken):
    """The message neither failed nor was cancelled, so there is nothing to try again."""

    code = "not_retryable"


class NotRecorded(NotTaken):
    """The message was handed in and not recorded in time. It may be recorded later: retry with the same key."""

    code = "not_recorded"

    def __init__(self, message_id: UUID) -> None:
        super().__init__("The message was not recorded in time; it may be recorded later.")
        self.message_id = message_id
