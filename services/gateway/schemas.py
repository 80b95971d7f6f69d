"""The bodies of the HTTP door."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema

from m3.access.invites import LONGEST as LONGEST_INVITE
from m3.access.invites import USUAL as USUAL_INVITE
from m3.access.passwords import LENGTH, LONGEST, SHORTEST
from m3.access.principals import Kind
from m3.access.rules import InvitedRole, MemberKind, Role, Visibility
from m3.events import Fate, Message, Number, OutsideSource, OutsideText, SenderKey, ThreadId, whole_number
from m3.tenants import Tenant, thread_id_of
from m3.threads import DAY, MAX_PROMPT, ThreadSettings
from m3.web import ErrorBody

#: Most messages in one answer. The predecessor had no bound, so a larger limit is taken to mean this one.
HISTORY_LIMIT = 500

#: What OpenAPI can say of OutsideText: not blank, which Python sees in more than JavaScript does, and no NUL.
SAYABLE_PATTERN = r"^[^\x00]*[^\s\x00\x1c-\x1f\x85][^\x00]*$"


Limit = Annotated[
    int,
    Field(ge=1, description=f"So many messages; at most {HISTORY_LIMIT} are returned."),
    BeforeValidator(whole_number),  # after the bound, which otherwise does not get into the OpenAPI document
]
Before = Annotated[Number, Field(description="Only messages whose `seq` is lower; the newest of them.")]
AtMost = Annotated[
    int, Field(ge=1, description=f"So many; at most {HISTORY_LIMIT} are returned."), BeforeValidator(whole_number)
]
BeforeLine = Annotated[Number, Field(description="Only entries whose `id` is lower.")]
After = Annotated[Number, Field(description="Only messages whose `seq` is higher; the oldest of them.")]


class ChatRequest(BaseModel):
    """Something said in a thread. ``source`` is `user` for a person, `api` for a program."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"message": "你好", "thread_id": "default", "source": "user"}]}
    )

    message: Annotated[OutsideText, Field(json_schema_extra={"pattern": SAYABLE_PATTERN})]
    """At most MESSAGE_LIMIT bytes of UTF-8, which are 16384 unless the room is set otherwise."""
    thread_id: ThreadId = "default"
    source: OutsideSource = "user"


class ChatReply(BaseModel):
    """The agent's reply. One that was ``cancelled`` was stopped before it was whole. Messages that shared a turn, or
    said the same, have the same reply."""

    response: str
    thread_id: ThreadId
    message_id: UUID
    seq: int
    reply_id: UUID
    reply_seq: int
    cancelled: bool = False


class ChatAccepted(BaseModel):
    """The message is recorded and its reply is still to come, or there will be none: then ``fate`` and ``reason`` tell
    why. ``place``: so many messages of programs wait before it. A program that may not read in the thread is told what
    was so when its message was recorded, and no Location."""

    thread_id: ThreadId
    message_id: UUID
    seq: int
    fate: Fate
    reason: str | None = None
    place: int | None = None


#: OpenAPI's account of an answer that is not the reply.
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": ChatAccepted,
        "description": "Recorded; the reply comes later, by socket and in the history, or its fate is another.",
        "headers": {"Location": {"description": "Where its fate is told.", "schema": {"type": "string"}}},
    }
}


class BatchMessage(BaseModel):
    """One of several messages. ``key``: any text of the sender's own; the same message with the same key is taken
    once."""

    message: Annotated[OutsideText, Field(json_schema_extra={"pattern": SAYABLE_PATTERN})]
    source: OutsideSource = "api"
    key: Annotated[SenderKey | None, Field(validation_alias=AliasChoices("key", "client_id"))] = None


class MessageTaken(BaseModel):
    """The message is recorded."""

    message_id: UUID
    seq: int


class BatchTaken(BaseModel):
    """What became of each message, in their order: recorded, or why it was not taken."""

    thread_id: ThreadId
    messages: list[MessageTaken | ErrorBody]


class CancelAccepted(BaseModel):
    """The agents were asked to stop."""

    thread_id: ThreadId


def _say_of_prompt(schema: dict[str, Any]) -> None:
    """The length in words: whoever makes up texts by the schema takes minutes for a pattern with a length."""
    del schema["maxLength"]
    schema |= {"pattern": SAYABLE_PATTERN, "description": f"At most {MAX_PROMPT} characters."}


class SettingsRequest(ThreadSettings):
    """What is to be set for a thread; what is null is as the room has it."""

    model_config = ConfigDict(strict=True)

    system_prompt: Annotated[OutsideText, Field(max_length=MAX_PROMPT, json_schema_extra=_say_of_prompt)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, wanted: object) -> object:
        """In JSON 12.0 is an integer as well."""
        if not isinstance(wanted, dict):
            return wanted
        return {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in wanted.items()
        }


class SettingsOfThread(BaseModel):
    """What is set for a thread; what is null is as the room has it."""

    thread_id: ThreadId
    settings: ThreadSettings


def _as_shown(message: Message) -> Message:
    thread_id = thread_id_of(message.thread_id)
    return message if thread_id == message.thread_id else message.model_copy(update={"thread_id": thread_id})


#: A message in an answer, in the thread that its tenant's people and programs know.
ShownMessage = Annotated[Message, AfterValidator(_as_shown)]


class Room(BaseModel):
    """``auth``: whether the room asks who somebody is; ``demo``: its agent has no model but the built-in demo, as far
    as this process is told; ``sign_up``: whoever has an invite may make an account; ``several_tenants``: whoever signs
    in says into which; ``message_limit``: of what is said, in bytes of UTF-8."""

    auth: Literal["open", "required"]
    demo: bool
    sign_up: bool
    several_tenants: bool
    message_limit: int
    version: str


class Me(BaseModel):
    """Who asks. ``auth`` tells whether the room asks who somebody is."""

    kind: Kind
    tenant: str
    name: str | None
    auth: Literal["open", "required"]


def _of_length(shortest: int) -> tuple[AfterValidator, FieldInfo]:
    """What a password is held to: the room's own sentence, since pydantic's speaks of items; and for OpenAPI."""

    def check(password: SecretStr) -> SecretStr:
        if not shortest <= len(password.get_secret_value()) <= LONGEST:
            raise ValueError(LENGTH.removesuffix("."))
        return password

    return AfterValidator(check), Field(json_schema_extra={"minLength": shortest, "maxLength": LONGEST})


Name = Annotated[str, Field(min_length=1, max_length=256, description="Case makes no difference.")]
Password = Annotated[SecretStr, *_of_length(1)]
NewPasswordText = Annotated[SecretStr, *_of_length(SHORTEST)]
InviteText = Annotated[SecretStr, Field(min_length=1, max_length=256)]
AfterName = Annotated[str, Query(max_length=256, pattern=r"^[^\x00]*$", description="Those that follow this one.")]
AfterThread = Annotated[ThreadId, Query(description="Those that follow this one.")]


class Form(BaseModel):
    """What is filled in to change something. A field that it does not have may be one that was misspelt, so it is
    refused."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def told(cls) -> str:
        """What it is made of, as a sentence."""
        needed = [name for name, field in cls.model_fields.items() if field.is_required()]
        others = [name for name in cls.model_fields if name not in needed]
        parts = [f"{how} {' and '.join(names)}" for how, names in (("has", needed), ("may have", others)) if names]
        return f"The body must be a JSON object that {', and '.join(parts)}."


def _like(example: JsonDict) -> ConfigDict:
    """A form or an answer for which OpenAPI shows this."""
    return ConfigDict(json_schema_extra={"examples": [example]})


class Login(Form):
    """Who signs in. ``new_password`` is the password from then on."""

    model_config = _like({"name": "ann", "password": "correct horse"})

    tenant: Tenant | SkipJsonSchema[None] = Field(None, description="Unless it is the first of TENANTS.")
    name: Name
    password: Password
    new_password: NewPasswordText | None = None


class SignUp(Form):
    """Who makes an account, in the tenant of the invite."""

    model_config = _like({"invite": "m3i_…", "name": "ann", "password": "correct horse"})

    invite: InviteText
    name: Name
    password: NewPasswordText


class Refresh(Form):
    model_config = _like({"refresh_token": "m3r_…"})

    refresh_token: Annotated[SecretStr, Field(min_length=1, max_length=256)]


class NewPassword(Form):
    model_config = _like({"password": "correct horse", "new_password": "battery staple"})

    password: Password
    new_password: NewPasswordText


class Tokens(BaseModel):
    """What shows who somebody is for ``expires_in`` seconds, in the header `Authorization: Bearer …`; and what gets the
    next."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - no secret
    expires_in: int
    refresh_token: str


class SignedUp(Tokens):
    """What shows who somebody is, as by signing in; and the thread of the invite, and what you are in it."""

    thread_id: ThreadId
    role: Role


class Ticket(BaseModel):
    """What opens one socket within ``expires_in`` seconds."""

    ticket: str
    expires_in: int


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class NewUser(Form):
    model_config = _like({"name": "ann"})

    name: Name
    operator: Annotated[bool, Field(strict=True)] = False


class ChangedUser(Form):
    """Whether somebody is an operator, from now on."""

    model_config = _like({"operator": True})

    operator: Annotated[bool, Field(strict=True)]


class User(_Shown):
    """``one_time``: its password is for one sign-in, which brings another."""

    name: str
    operator: bool
    one_time: bool
    created_at: datetime


class Users(BaseModel):
    """By name."""

    users: list[User]


class NewPasswordOfUser(BaseModel):
    """A password that is good for one sign-in, which is to bring another."""

    name: str
    password: str


class ShownPassword(NewPasswordOfUser):
    """Likewise, of a new account."""

    operator: bool


class NewKey(Form):
    """A program that feeds these threads; with ``reads`` it may read them too."""

    model_config = _like({"name": "my-stream", "threads": ["show"]})

    name: Name
    threads: Annotated[list[ThreadId], Field(min_length=1, max_length=100)]
    reads: Annotated[bool, Field(strict=True)] = False


class ThreadOfKey(_Shown):
    """A thread that a producer key is for, and what it may there."""

    thread_id: ThreadId
    feeds: bool
    reads: bool


class Key(_Shown):
    """What is known of a producer key by its ``prefix``."""

    prefix: str
    name: str
    created_at: datetime
    threads: list[ThreadOfKey]


class Keys(BaseModel):
    """By prefix."""

    keys: list[Key]


class ShownKey(BaseModel):
    """``key`` is shown this once. It is known by its ``prefix``."""

    prefix: str
    name: str
    threads: list[ThreadId]
    reads: bool
    key: str


class AuditLine(_Shown):
    """Something that ``actor`` did, or was refused."""

    id: int
    at: datetime
    actor: str
    action: str
    target: str
    outcome: Literal["done", "refused"]
    address: str
    detail: str


class Audit(BaseModel):
    """Newest first."""

    entries: list[AuditLine]


class NewThread(Form):
    """``thread_id`` is for operators to say."""

    model_config = _like({"visibility": "private"})

    thread_id: ThreadId | None = None
    visibility: Visibility = "private"


class Thread(_Shown):
    """A thread that you find. ``role``: what you are in it; null where you are no member. ``head``: the last number
    given out in it; ``last_at``: when its newest message was said, null where there is none. Both are null for a
    program that does not read there. Operators are told its ``owners`` and how many ``members`` it has, others null."""

    model_config = _like(
        {
            "thread_id": "show",
            "visibility": "private",
            "role": "owner",
            "head": 42,
            "last_at": "2026-01-01T12:00:00Z",
            "owners": None,
            "members": None,
        }
    )

    thread_id: ThreadId
    visibility: Visibility
    role: Role | None
    head: int | None
    last_at: datetime | None
    owners: list[str] | None = None
    members: int | None = None


class Threads(BaseModel):
    """By id."""

    threads: list[Thread]


class NewMember(Form):
    """A `person` can be `owner`, `member` or `reader`; a `program` `feeder`, which does not read, `member` or
    `reader`."""

    model_config = _like({"role": "member"})

    role: Role
    kind: MemberKind = "person"


class Member(_Shown):
    name: str
    kind: MemberKind
    role: Role


class Members(BaseModel):
    thread_id: ThreadId
    members: list[Member]


class VisibilityRequest(Form):
    model_config = _like({"visibility": "open"})

    visibility: Visibility


class VisibilityOfThread(BaseModel):
    thread_id: ThreadId
    visibility: Visibility


class NewInvite(Form):
    """What it makes of whoever accepts it, and for how many seconds it is good."""

    model_config = _like({"role": "reader", "expires_in": DAY})

    role: InvitedRole = "member"
    expires_in: Annotated[int, Field(strict=True, ge=60, le=LONGEST_INVITE * DAY)] = USUAL_INVITE * DAY


class ShownInvite(_Shown):
    """``invite`` is shown this once. It is known by its ``prefix``."""

    prefix: str
    invite: str
    thread_id: ThreadId
    role: InvitedRole
    expires_at: datetime


class Invite(_Shown):
    """What is known of an invite. ``made_by``: null where it was made at the machine."""

    prefix: str
    role: InvitedRole
    made_by: str | None
    created_at: datetime
    expires_at: datetime


class Invites(BaseModel):
    """Oldest first."""

    thread_id: ThreadId
    invites: list[Invite]


class AcceptedInvite(Form):
    model_config = _like({"invite": "m3i_…"})

    invite: InviteText


class Joined(_Shown):
    """A thread, and what you are in it now."""

    thread_id: ThreadId
    role: Role


class History(BaseModel):
    """Messages of a thread, oldest first."""

    thread_id: ThreadId
    messages: list[ShownMessage]


class Found(BaseModel):
    """Messages of a thread that were searched for, newest first."""

    thread_id: ThreadId
    messages: list[ShownMessage]
