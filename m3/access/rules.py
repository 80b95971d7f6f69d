"""Who may do what. All of it is here, and pure: doors find out who asks and how they stand to a thread, and ask this.

Where somebody has no standing in a thread, it is as if there were none: they are told the same as of a thread that does
not exist.
"""

from enum import Enum, auto
from typing import Literal

from m3.access.principals import Kind
from m3.events import OutsideSource

#: How a principal stands to a thread: its ``owner`` also sees to its members; a ``member`` reads and speaks; a
#: ``reader`` reads; a ``feeder``, which is a program, speaks and does not read; everybody with an account is a
#: ``guest`` of an open thread. Operators need none.
Role = Literal["owner", "member", "reader", "feeder"]
Standing = Role | Literal["guest"]
#: Who finds a thread: its members, or every account of its tenant.
Visibility = Literal["private", "open"]
#: Who can be a member.
MemberKind = Literal["person", "program"]
#: What an invite makes of whoever accepts it.
InvitedRole = Literal["member", "reader"]
#: What people may be in a thread, that first which may most.
_OF_PEOPLE: tuple[Role, ...] = ("owner", "member", "reader")
#: What each may be in a thread: nobody but a person sees to it, and nobody but a program only feeds it.
ROLES: dict[MemberKind, frozenset[Role]] = {
    "person": frozenset(_OF_PEOPLE),
    "program": frozenset(("feeder", "member", "reader")),
}
#: What each kind speaks as. ``anyone`` is believed.
SPEAKS_AS: dict[Kind, OutsideSource] = {"person": "user", "operator": "user", "program": "api"}


class Action(Enum):
    """What can be asked for. Of these some are about a thread, and some are not."""

    READ = auto()  # its history, messages, search, sockets; that one types
    SPEAK = auto()  # as a person, source `user`
    FEED = auto()  # as a program, source `api`
    CANCEL = auto()  # the agent's turn
    RETRY = auto()  # a message whose turn failed
    CONFIGURE = auto()  # how the agent deals with it
    SEE_MEMBERS = auto()
    ADMIT = auto()  # change its members and its visibility, and invite others
    ADMIT_PROGRAM = auto()  # let a producer key in, or change what it may
    LEAVE = auto()  # be no member any more, oneself

    PROBE = auto()  # the page, what the room is like, health, counters, the API's description
    SIGN_IN = auto()  # renew a sign-in, or make an account: what is presented says who may
    BE = auto()  # oneself: who am I, get a ticket, list my threads
    SIGN_OUT = auto()
    CHANGE_PASSWORD = auto()
    MAKE_THREAD = auto()
    JOIN = auto()  # a thread by an invite, which is presented too and says which
    OPERATE = auto()  # accounts, keys, the audit


#: What needs no standing in a thread, and who may.
_WITHOUT_A_THREAD: dict[Action, frozenset[Kind]] = {
    Action.PROBE: frozenset(("person", "operator", "program", "anyone")),
    Action.SIGN_IN: frozenset(("person", "operator", "program", "anyone")),
    Action.BE: frozenset(("person", "operator", "program")),
    Action.SIGN_OUT: frozenset(("person", "operator")),
    Action.CHANGE_PASSWORD: frozenset(("person", "operator")),
    Action.MAKE_THREAD: frozenset(("person", "operator")),
    Action.JOIN: frozenset(("person", "operator")),
    Action.OPERATE: frozenset(("operator",)),
}

_TALKS = frozenset((Action.READ, Action.SPEAK, Action.CANCEL, Action.RETRY))
_BELONGS = frozenset((Action.READ, Action.SEE_MEMBERS, Action.LEAVE))
_OWNS = _TALKS | _BELONGS | {Action.CONFIGURE, Action.ADMIT}

#: What each standing allows.
_BY_STANDING: dict[Standing, frozenset[Action]] = {
    "owner": _OWNS,
    "member": _TALKS | _BELONGS | {Action.FEED},
    "reader": _BELONGS,
    "feeder": frozenset((Action.FEED,)),
    "guest": _TALKS,
}

#: What nobody of a kind ever may, whatever their standing: a person is no program, and a program no person.
_NEVER: dict[Kind, frozenset[Action]] = {
    "person": frozenset((Action.FEED,)),
    "operator": frozenset((Action.FEED,)),
    "program": _OWNS - {Action.READ},
    "anyone": frozenset(),
}

#: What an operator may in every thread of the tenant.
_OPERATORS = _OWNS | {Action.ADMIT_PROGRAM}

#: Why somebody may not, where that takes a sentence of its own.
BECAUSE = {Action.SIGN_OUT: "A key is revoked by an operator.", Action.JOIN: "Operators let programs in."}

#: What anybody may ask for, whatever they show or do not show: the rest takes a credential.
OPEN_TO_ALL = frozenset((Action.PROBE, Action.SIGN_IN))


def about_a_thread(action: Action) -> bool:
    return action not in _WITHOUT_A_THREAD


def standing_of(kind: Kind, role: Role | None, visibility: Visibility) -> Standing | None:
    """How somebody of the kind stands to a thread in which they have that role, or none."""
    return "guest" if role is None and visibility == "open" and kind != "program" else role


def better_role(held: Role | None, offered: Role) -> Role:
    """Of what somebody is in a thread and could be, that which may more. Both are people's."""
    return offered if held is None else min(held, offered, key=_OF_PEOPLE.index)


def finds(kind: Kind, standing: Standing | None) -> bool:
    """Whether the thread is there for them at all."""
    return kind in {"operator", "anyone"} or standing is not None


def may(kind: Kind, action: Action, standing: Standing | None = None) -> bool:
    """Whether somebody of the kind, who stands so to the thread, may do this. ``anyone`` is only in a room that asks
    nobody who they are, and may whatever is about a thread."""
    if not about_a_thread(action):
        return kind in _WITHOUT_A_THREAD[action]
    if kind == "anyone":
        return True
    if action in _NEVER[kind]:
        return False
    granted = _OPERATORS if kind == "operator" else frozenset()
    return action in granted or (standing is not None and action in _BY_STANDING[standing])


#: What each route asks for, one of these. What speaks in a thread is SPEAK or FEED, by the source of each message;
#: having somebody be no member any more LEAVE of oneself, and ADMIT of others; and letting a program in ADMIT_PROGRAM.
ROUTES: dict[tuple[str, str], frozenset[Action]] = {
    ("POST", "/api/chat"): frozenset((Action.SPEAK, Action.FEED)),
    ("POST", "/api/threads/{thread_id}/messages"): frozenset((Action.SPEAK, Action.FEED)),
    ("GET", "/api/threads/{thread_id}/history"): frozenset((Action.READ,)),
    ("GET", "/api/threads/{thread_id}/search"): frozenset((Action.READ,)),
    ("GET", "/api/messages/{message_id}"): frozenset((Action.READ,)),
    ("POST", "/api/messages/{message_id}/retry"): frozenset((Action.RETRY,)),
    ("POST", "/api/threads/{thread_id}/cancel"): frozenset((Action.CANCEL,)),
    ("GET", "/api/threads/{thread_id}/settings"): frozenset((Action.READ,)),
    ("PUT", "/api/threads/{thread_id}/settings"): frozenset((Action.CONFIGURE,)),
    ("GET", "/api/threads"): frozenset((Action.BE,)),
    ("POST", "/api/threads"): frozenset((Action.MAKE_THREAD,)),
    ("GET", "/api/threads/{thread_id}/members"): frozenset((Action.SEE_MEMBERS,)),
    ("PUT", "/api/threads/{thread_id}/members/{name}"): frozenset((Action.ADMIT,)),
    ("DELETE", "/api/threads/{thread_id}/members/{name}"): frozenset((Action.ADMIT, Action.LEAVE)),
    ("PUT", "/api/threads/{thread_id}/visibility"): frozenset((Action.ADMIT,)),
    ("GET", "/api/threads/{thread_id}/invites"): frozenset((Action.ADMIT,)),
    ("POST", "/api/threads/{thread_id}/invites"): frozenset((Action.ADMIT,)),
    ("DELETE", "/api/threads/{thread_id}/invites/{prefix}"): frozenset((Action.ADMIT,)),
    ("POST", "/api/invites"): frozenset((Action.JOIN,)),
    ("POST", "/api/login"): frozenset((Action.SIGN_IN,)),
    ("POST", "/api/signup"): frozenset((Action.SIGN_IN,)),
    ("POST", "/api/refresh"): frozenset((Action.SIGN_IN,)),
    ("POST", "/api/logout"): frozenset((Action.SIGN_OUT,)),
    ("POST", "/api/password"): frozenset((Action.CHANGE_PASSWORD,)),
    ("GET", "/api/me"): frozenset((Action.BE,)),
    ("POST", "/api/ws-ticket"): frozenset((Action.BE,)),
    ("GET", "/api/users"): frozenset((Action.OPERATE,)),
    ("POST", "/api/users"): frozenset((Action.OPERATE,)),
    ("PUT", "/api/users/{name}"): frozenset((Action.OPERATE,)),
    ("DELETE", "/api/users/{name}"): frozenset((Action.OPERATE,)),
    ("POST", "/api/users/{name}/password"): frozenset((Action.OPERATE,)),
    ("GET", "/api/keys"): frozenset((Action.OPERATE,)),
    ("POST", "/api/keys"): frozenset((Action.OPERATE,)),
    ("DELETE", "/api/keys/{prefix}"): frozenset((Action.OPERATE,)),
    ("GET", "/api/audit"): frozenset((Action.OPERATE,)),
    ("GET", "/"): frozenset((Action.PROBE,)),
    ("GET", "/assets/{path:path}"): frozenset((Action.PROBE,)),
    ("GET", "/api/room"): frozenset((Action.PROBE,)),
    ("GET", "/healthz"): frozenset((Action.PROBE,)),
    ("GET", "/readyz"): frozenset((Action.PROBE,)),
    ("GET", "/metrics"): frozenset((Action.PROBE,)),
    ("GET", "/docs"): frozenset((Action.PROBE,)),
    ("GET", "/docs/files"): frozenset((Action.PROBE,)),
    ("GET", "/openapi.json"): frozenset((Action.PROBE,)),
}

#: What a socket asks for by being opened, and by each type of frame that it sends.
SOCKET: dict[str, frozenset[Action]] = {
    "open": frozenset((Action.READ,)),
    "ping": frozenset((Action.READ,)),
    "message": frozenset((Action.SPEAK, Action.FEED)),
    "messages": frozenset((Action.SPEAK, Action.FEED)),
    "typing": frozenset((Action.READ,)),
    "cancel": frozenset((Action.CANCEL,)),
}
