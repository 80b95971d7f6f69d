"""What becomes of what waits in a thread, as values."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from m3.events import Message, OutsideSource
from m3.settings import Settings
from m3.store import Waiting
from m3.threads import ThreadSettings
from services.agent.policy import Plan, Rules, plan

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROOM = Settings()
RULES = Rules.of(ROOM, ThreadSettings())


def said(content: str, source: OutsideSource = "user", *, at: float = 0.0, reply_id: UUID | None = None) -> Message:
    """``at``: seconds after noon."""
    said.number += 1  # type: ignore[attr-defined]  # a counter of its own
    number = said.number  # type: ignore[attr-defined]  # as above
    return Message(
        id=number,
        message_id=uuid7(),
        thread_id="thread",
        seq=number,
        rev=number,
        role="user",
        content=content,
        source=source,
        timestamp=NOON + timedelta(seconds=at),
        interface="http_api",
        fate="answered" if reply_id else "pending",
        reply_id=reply_id,
    )


said.number = 0  # type: ignore[attr-defined]  # as above


def planned(
    messages: Sequence[Message],
    rules: Rules = RULES,
    *,
    age: float = 1.0,
    answered: Sequence[Message] = (),
    programs_are_due: bool = False,
) -> Plan:
    waiting = [Waiting(message, age) for message in messages]
    return plan(waiting, rules, count=len, answered=answered, programs_are_due=programs_are_due)


def with_policies(**policies: str) -> Rules:
    return Rules.of(ROOM, ThreadSettings.model_validate(policies))


def fates(made: Plan) -> list[tuple[str, int]]:
    return [(passed.fate, len(passed.message_ids)) for passed in made.passed_over]


def texts(made: Plan) -> list[str]:
    return [message.content for message in made.turn]


def test_nothing_waits_so_nothing_is_done() -> None:
    assert planned([]) == Plan()


def test_every_message_of_a_person_gets_a_turn_of_its_own_in_order() -> None:
    made = planned([said("one"), said("two")])
    assert (texts(made), made.lane, fates(made)) == (["one"], "user", [])


def test_what_programs_said_meanwhile_is_answered_together() -> None:
    made = planned([said("one", "api"), said("two", "api"), said("three", "api")])
    assert (texts(made), made.lane) == (["one", "two", "three"], "api")


def test_people_come_before_programs_that_waited_longer() -> None:
    assert texts(planned([said("feed", "api"), said("person")])) == ["person"]


def test_programs_have_their_turn_when_it_is_due() -> None:
    assert texts(planned([said("feed", "api"), said("person")], programs_are_due=True)) == ["feed"]
    assert texts(planned([said("person")], programs_are_due=True)) == ["person"]


@pytest.mark.parametrize("lane", ["user", "api"])
@pytest.mark.parametrize(("policy", "answered"), [("each", 1), ("coalesce", 3), ("interrupt", 3), ("ignore", 0)])
def test_each_lane_has_its_policy(lane: OutsideSource, policy: str, answered: int) -> None:
    made = planned([said(text, lane) for text in "abc"], with_policies(**{f"{lane}_policy": policy}))
    assert len(made.turn) == answered
    assert fates(made) == ([("ignored", 3)] if policy == "ignore" else [])


def test_a_lane_that_is_ignored_does_not_keep_the_other_from_its_turn() -> None:
    made = planned([said("person"), said("feed", "api")], with_policies(user_policy="ignore"))
    assert (texts(made), fates(made)) == (["feed"], [("ignored", 1)])


def test_a_paused_thread_is_left_as_it_is() -> None:
    stale = planned([said("person"), said("feed", "api")], replace(RULES, pause="wait"), age=1e6)
    assert stale == Plan()


def test_a_paused_thread_that_does_not_wait_has_everything_ignored() -> None:
    made = planned([said("person"), said("feed", "api")], replace(RULES, pause="ignore"))
    assert (made.turn, fates(made)) == ((), [("ignored", 2)])


def test_what_programs_said_too_long_ago_expires_before_it_costs_a_token_and_what_people_said_does_not() -> None:
    made = planned([said("feed", "api"), said("person")], replace(RULES, api_ttl=60), age=61)
    assert (texts(made), fates(made)) == (["person"], [("expired", 1)])
    assert "60 seconds" in made.passed_over[0].reason


def test_past_the_cap_the_oldest_of_programs_are_shed() -> None:
    messages = [said(str(number), "api") for number in range(7)]
    made = planned(messages, replace(RULES, api_cap=4))
    assert texts(made) == ["3", "4", "5", "6"]
    assert [passed.message_ids for passed in made.passed_over] == [tuple(m.message_id for m in messages[:3])]
    assert fates(made) == [("shed", 3)]


def test_a_batch_has_at_most_so_many_messages_and_so_many_tokens_but_always_one() -> None:
    messages = [said("four", "api"), said("five5", "api"), said("sixsix", "api")]
    assert texts(planned(messages, replace(RULES, batch_messages=2))) == ["four", "five5"]
    assert texts(planned(messages, replace(RULES, batch_tokens=9))) == ["four", "five5"]
    assert texts(planned(messages, replace(RULES, batch_tokens=1))) == ["four"]


def test_a_text_that_is_repeated_in_a_batch_is_shown_once_and_waits_for_that_reply() -> None:
    made = planned([said("666", "api"), said(" 6 66", "api"), said("666 ", "api"), said("hello", "api")])
    assert (texts(made), fates(made)) == (["666", " 6 66", "hello"], [])


def test_a_text_that_was_answered_lately_shares_that_reply() -> None:
    reply_id = uuid7()
    answered = [said("Hello  there", "api", at=0, reply_id=reply_id)]
    late, soon = said("hello there", "api", at=5.1), said("HELLO there ", "api", at=4.9)
    made = planned([soon, late], answered=answered)
    assert [(one.fate, one.message_ids, one.reply_id) for one in made.passed_over] == [
        ("merged", (soon.message_id,), reply_id)
    ]
    assert texts(made) == ["hello there"]


@pytest.mark.parametrize("rules", [replace(RULES, merge_window=0), with_policies(api_policy="each")])
def test_repeated_texts_are_answered_each_where_that_is_wanted(rules: Rules) -> None:
    answered = [said("hello", "api", reply_id=uuid7())]
    made = planned([said("hello", "api", at=1)], rules, answered=answered)
    assert (texts(made), fates(made)) == (["hello"], [])


def test_people_may_repeat_themselves() -> None:
    made = planned([said("hello"), said("hello")], with_policies(user_policy="coalesce"))
    assert texts(made) == ["hello", "hello"]


@pytest.mark.parametrize(
    ("policies", "running", "interrupting"),
    [
        ({}, "user", set()),
        ({"user_policy": "interrupt"}, "user", {"user"}),
        ({"user_policy": "interrupt"}, "api", {"user"}),
        ({"api_policy": "interrupt"}, "api", {"api"}),
        ({"api_policy": "interrupt"}, "user", set()),
    ],
)
def test_who_breaks_off_a_turn(policies: dict[str, str], running: OutsideSource, interrupting: set[str]) -> None:
    assert with_policies(**policies).interrupting(running) == interrupting


def test_a_thread_has_the_rooms_rules_but_for_its_own() -> None:
    own = Rules.of(ROOM, ThreadSettings(api_policy="each", api_ttl=1, merge_window=0))
    assert (own.policies, own.api_ttl, own.merge_window) == ({"user": "each", "api": "each"}, 1, 0)
    assert (own.api_cap, own.batch_messages, own.pause) == (ROOM.api_cap, ROOM.batch_messages, None)


def test_what_was_asked_for_again_is_neither_too_old_nor_too_much_nor_a_repetition() -> None:
    again = said("hello", "api").model_copy(update={"rev": 1_000_000})
    answered = [said("hello", "api", reply_id=uuid7())]
    made = planned([again, said("other", "api")], replace(RULES, api_ttl=1, api_cap=1), age=5, answered=answered)
    assert (texts(made), fates(made)) == (["hello"], [("expired", 1)])


def test_an_older_text_does_not_share_the_reply_to_one_that_was_said_much_later() -> None:
    answered = [said("hello", "api", at=100, reply_id=uuid7())]
    made = planned([said("hello", "api", at=0)], answered=answered)
    assert (texts(made), fates(made)) == (["hello"], [])


def test_what_repeats_a_text_whose_reply_is_there_shares_it_however_long_that_took() -> None:
    answered = [said("hello", "api", reply_id=uuid7())]
    made = planned([said("hello", "api")], replace(RULES, api_ttl=1), age=5, answered=answered)
    assert fates(made) == [("merged", 1)]


@pytest.mark.parametrize(
    ("rules", "full"),
    [
        (with_policies(api_policy="each"), True),
        (with_policies(api_policy="interrupt"), False),
        (replace(RULES, batch_messages=2), True),
        (replace(RULES, batch_tokens=4), True),
        (replace(RULES, batch_tokens=10), False),
    ],
)
def test_a_turn_is_full_when_no_other_message_could_join_it(rules: Rules, full: bool) -> None:  # noqa: FBT001  # the outcome
    assert planned([said("one", "api"), said("two", "api")], rules).full == full
