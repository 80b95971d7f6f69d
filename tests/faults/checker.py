"""What must hold of a room after a load, whatever was done to it meanwhile. Values in, violations out."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

#: What the model of the load puts before what it was told, so that a reply to another message is found out.
REPLY = "re: "

#: The kind of a frame that tells an answer. It comes right before the reply, whose number it has.
ANSWERED = "fate:answered"

Verdict = Literal["acknowledged", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Said:
    """What a sender was told of one message, after its last try. Each content is said once in a whole load."""

    thread: str
    content: str
    verdict: Verdict
    begun: float
    message_id: str | None = None
    seq: int | None = None
    #: The reply that a POST was answered with.
    reply_id: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the dialogue table."""

    thread: str
    seq: int
    rev: int
    message_id: str
    content: str
    fate: str | None
    reply_id: str | None = None
    in_reply_to: tuple[str, ...] = ()

    @property
    def is_reply(self) -> bool:
        return self.fate is None


@dataclass(frozen=True, slots=True)
class Frame:
    """What a socket was sent and takes a place in its thread. ``kind`` is the frame's type, or ANSWERED."""

    kind: str
    number: int
    thread: str
    message_id: str = ""


@dataclass(slots=True)
class Sitting:
    """One connection of a listener, from its welcome on. ``after`` is what it asked for, None for news alone."""

    after: int | None
    opened: float
    frames: list[Frame] = field(default_factory=list)


@dataclass(slots=True)
class Heard:
    """All connections of one listener, in order. ``everything``: it asked for events=all."""

    name: str
    thread: str
    everything: bool
    sittings: list[Sitting] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Log:
    """What was seen of a room from outside and, once it came to rest, in its table and its queues."""

    said: Sequence[Said] = ()
    rows: Sequence[Row] = ()
    heads: Mapping[str, int] = field(default_factory=dict)
    heard: Sequence[Heard] = ()
    #: The messages that turns answered of which sockets were told.
    news: Collection[str] = ()
    #: Messages in each work queue.
    queues: Mapping[str, int] = field(default_factory=dict)
    dead: Sequence[bytes] = ()
    #: Bodies that no service understands: all that were sent, and those of them that must end in the dead letters.
    poison: Sequence[bytes] = ()
    deadly: Sequence[bytes] = ()
    #: What clients were told that no client should be told, in words.
    odd: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Violation:
    """``what`` names the promise that was broken, ``sentence`` tells where."""

    what: str
    sentence: str


def violations(log: Log) -> list[Violation]:
    """Every promise that the log shows to be broken."""
    rows = defaultdict(list)
    for row in log.rows:
        rows[row.thread].append(row)
    found = [*_recorded(log), *_fates(log.rows), *_queues(log), *(Violation("odd answer", odd) for odd in log.odd)]
    if strange := set(log.news) - {row.message_id for row in log.rows}:
        found.append(Violation("foreign news", f"sockets were told of turns for {_some(strange)}"))
    for thread in rows.keys() | log.heads.keys():
        found += _numbers(thread, rows[thread], log.heads.get(thread, 0))
    for heard in log.heard:
        found += _pushed(heard, rows[heard.thread], [said for said in log.said if said.thread == heard.thread])
    return found


def _recorded(log: Log) -> Iterator[Violation]:
    """Acknowledged: in the table once, as it was acknowledged. Refused: not there. Unknown: at most once."""
    by_content = defaultdict(list)
    for row in log.rows:
        if not row.is_reply:
            by_content[row.content].append(row)
    known = {said.content for said in log.said}
    for said in log.said:
        rows = by_content[said.content]
        name = f"{said.content[:60]!r} in {said.thread}"
        if len(rows) > 1:
            yield Violation("doubled", f"{name} is recorded {len(rows)} times")
        if said.verdict == "refused" and rows:
            yield Violation("refused but recorded", name)
        if said.verdict == "acknowledged":
            yield from _kept(name, said, rows)
    for content in by_content.keys() - known:
        yield Violation("never said", f"{content[:60]!r} is recorded")


def _kept(name: str, said: Said, rows: Sequence[Row]) -> Iterator[Violation]:
    """An acknowledged message is there as it was acknowledged, and so is the reply that came with it."""
    if not rows:
        yield Violation("lost", f"{name}, acknowledged as {said.message_id}")
        return
    row = rows[0]
    if (row.thread, row.message_id) != (said.thread, said.message_id) or said.seq not in {None, row.seq}:
        yield Violation(
            "not as acknowledged",
            f"{name}: {said.message_id} number {said.seq} was acknowledged, "
            f"{row.message_id} number {row.seq} in {row.thread} is recorded",
        )
    if said.reply_id != (row.reply_id if said.reply_id else None):
        yield Violation("wrong reply", f"{name} was answered with {said.reply_id}, recorded is {row.reply_id}")


def _numbers(thread: str, rows: Sequence[Row], head: int) -> Iterator[Violation]:
    """Messages and changes take each number from 1 to the head once."""
    numbers = [row.seq for row in rows] + [row.rev for row in rows if row.rev != row.seq]
    for row in rows:
        if row.rev < row.seq:
            yield Violation("numbers", f"{thread}: number {row.seq} was changed by {row.rev}, before it was")
        if row.fate == "failed" and row.rev == row.seq:
            yield Violation("numbers", f"{thread}: number {row.seq} failed without a number")
    for number, times in Counter(numbers).items():
        if times > 1:
            yield Violation("numbers", f"{thread}: {number} was given {times} times")
    if missing := set(range(1, head + 1)) - set(numbers):
        yield Violation("numbers", f"{thread}: {_some(missing)} missing up to {head}")
    if beyond := {number for number in numbers if not 1 <= number <= head}:
        yield Violation("numbers", f"{thread}: {_some(beyond)} beyond {head}")


def _fates(rows: Sequence[Row]) -> Iterator[Violation]:
    """Every message has a fate, and exactly one reply if it was answered."""
    replies = defaultdict(list)
    ids = {row.message_id for row in rows}
    for row in rows:
        for message_id in row.in_reply_to:
            replies[message_id].append(row)
        if row.is_reply and not set(row.in_reply_to) & ids:
            yield Violation("reply to nothing", f"{row.thread}: number {row.seq}")
    for row in rows:
        if not row.is_reply:
            yield from _fate(row, replies[row.message_id])


def _fate(row: Row, replies: Sequence[Row]) -> Iterator[Violation]:
    name = f"{row.thread}: number {row.seq}"
    if row.fate == "pending":
        yield Violation("pending", name)
    if len(replies) != (row.fate == "answered"):
        yield Violation("replies", f"{name} is {row.fate} and has {len(replies)} replies")
    for reply in replies:
        if reply.thread != row.thread or reply.content != REPLY + row.content:
            yield Violation("wrong reply", f"{name} has the reply {reply.content[:60]!r} in {reply.thread}")
        if row.fate == "answered" and row.reply_id != reply.message_id:
            yield Violation("wrong reply", f"{name} names {row.reply_id}, its reply is {reply.message_id}")


def _pushed(heard: Heard, rows: Sequence[Row], said: Sequence[Said]) -> Iterator[Violation]:
    """Over all its connections a socket heard each number after its start once, in order, up to the head."""
    name = f"{heard.name} in {heard.thread}"
    frames = [frame for sitting in heard.sittings for frame in sitting.frames]
    if foreign := {frame.thread for frame in frames} - {heard.thread}:
        yield Violation("foreign thread", f"{name} heard {_some(foreign)}")
        return
    if any(frame.kind == "reset" for frame in frames):
        yield Violation("reset", f"{name} was told to begin anew")
        return
    happened = _happened(rows, everything=heard.everything)
    counted = [frame for frame in frames if frame.kind != ANSWERED]
    first = next((sitting for sitting in heard.sittings if sitting.frames), None)
    if first is None:
        start = min((sitting.after for sitting in heard.sittings if sitting.after is not None), default=None)
    else:
        start = first.after
    if start is None:
        start = counted[0].number - 1 if counted else max(happened, default=0)
        yield from _missed_beginning(name, heard, start, rows, said)
    wanted = [(number, kind) for number, kind in sorted(happened.items()) if number > start]
    got = [(frame.number, frame.kind) for frame in counted]
    if got != wanted:
        yield Violation("socket", f"{name}: {_difference(got, wanted)}")
    ids = {row.seq: row.message_id for row in rows}
    if wrong := [f.number for f in counted if f.kind == "new_message" and f.message_id != ids.get(f.number)]:
        yield Violation("socket", f"{name} heard other messages as {_some(wrong)}")
    yield from _answers(name, heard, rows, start)


def _happened(rows: Iterable[Row], *, everything: bool) -> dict[int, str]:
    """What takes each number of a thread, as its listeners are told."""
    happened = {row.seq: "new_message" for row in rows}
    if everything:
        happened |= {row.rev: "fate" for row in rows if row.rev != row.seq}
    return happened


def _missed_beginning(
    name: str, heard: Heard, start: int, rows: Sequence[Row], said: Sequence[Said]
) -> Iterator[Violation]:
    """Who asked for news alone hears whatever was said after its welcome."""
    opened = next(
        (sitting.opened for sitting in heard.sittings if sitting.frames),
        heard.sittings[-1].opened if heard.sittings else float("inf"),
    )
    seqs = {row.content: row.seq for row in rows if not row.is_reply}
    later = [seqs[one.content] for one in said if one.begun > opened and one.content in seqs]
    if missed := [seq for seq in later if seq <= start]:
        yield Violation("socket", f"{name} was not told {_some(missed)}, said after its welcome")


def _answers(name: str, heard: Heard, rows: Sequence[Row], start: int) -> Iterator[Violation]:
    """With events=all each answer is told too, right before its reply; once more only where a cut came in between."""
    told = set[int]()
    for sitting in heard.sittings:
        highest = 0
        for place, frame in enumerate(sitting.frames):
            if frame.number < highest:
                yield Violation("socket", f"{name} heard {frame.number} after {highest}")
            highest = max(highest, frame.number)
            if frame.kind == ANSWERED:
                if not heard.everything:
                    yield Violation("socket", f"{name} was told the answer {frame.number}, which it did not ask for")
                if frame.number in told:
                    yield Violation("socket", f"{name} heard the answer {frame.number} more than once")
                if place < len(sitting.frames) - 1:
                    told.add(frame.number)
    replies = {row.seq for row in rows if row.is_reply and row.seq > start}
    if heard.everything and (missed := replies - told):
        yield Violation("socket", f"{name} was not told the answers {_some(missed)}")


def _queues(log: Log) -> Iterator[Violation]:
    """Work is done, and nothing is among the dead letters but what cannot be understood."""
    for queue, messages in log.queues.items():
        if messages:
            yield Violation("queue not empty", f"{queue} holds {messages}")
    for body in (Counter(log.dead) - Counter(log.poison)).elements():
        yield Violation("dead letter", f"{body[:200]!r}")
    for body in (Counter(log.deadly) - Counter(log.dead)).elements():
        yield Violation("poison vanished", f"{body[:200]!r}")


def _difference(got: Sequence[tuple[int, str]], wanted: Sequence[tuple[int, str]]) -> str:
    parts = []
    if missing := set(wanted) - set(got):
        parts.append(f"missing {_some(number for number, _ in missing)}")
    if extra := set(got) - set(wanted):
        parts.append(f"unexpected {_some(number for number, _ in extra)}")
    if repeated := [number for (number, _), times in Counter(got).items() if times > 1]:
        parts.append(f"repeated {_some(repeated)}")
    if not parts:
        parts.append("out of order")
    return f"{', '.join(parts)} of {len(wanted)}"


def _some(values: Iterable[object]) -> str:
    listed = sorted(map(str, values), key=lambda value: (len(value), value))
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more
