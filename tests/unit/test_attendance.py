"""Who is in which thread over all pushers, which tell each other: without a bus, and with a clock of their own."""

from uuid import UUID

import pytest

from m3.events import ANYONE, SocketsCounted, decode, encode
from services.pusher.attendance import (
    ASKING,
    BEAT,
    HELD,
    KEPT,
    PACE,
    PATIENCE,
    REPORT,
    ROSTER,
    SILENCE,
    TYPING,
    TYPISTS,
    Attendance,
    Crowd,
)


class Pushers:
    """So many pushers; what one tells, all that live hear, it itself included."""

    def __init__(self, *names: str) -> None:
        self.now = 100.0
        self.living: list[Attendance] = []
        self.told: list[SocketsCounted] = []
        self.by_name = {name: self.start() for name in names}

    def __getitem__(self, name: str) -> Attendance:
        return self.by_name[name]

    def start(self) -> Attendance:
        pusher = Attendance(UUID(int=len(self.told) + len(self.living)))
        self.living.append(pusher)
        return pusher

    def kill(self, name: str) -> None:
        self.living.remove(self[name])

    def tell(self, *, deaf: Attendance | None = None) -> None:
        """A moment later everybody reports, and is heard by all but who is deaf."""
        self.now += 0.1
        for pusher in tuple(self.living):
            for report in pusher.reports(self.now):
                self.told.append(report)
                for hearer in self.living:
                    if hearer is not deaf:
                        hearer.hear(report, self.now)

    def wait(self, seconds: float, *, deaf: Attendance | None = None) -> None:
        """As time passes, in steps as those in which pushers report."""
        end = self.now + seconds
        while self.now < end:
            self.tell(deaf=deaf)

    def connections(self, thread_id: str = "t") -> list[int]:
        return [pusher.connections(thread_id, self.now) for pusher in self.living]


@pytest.fixture
def pushers() -> Pushers:
    """Three that know of each other."""
    pushers = Pushers("a", "b", "c")
    pushers.wait(0.5)
    return pushers


def test_sockets_count_over_all_pushers_as_soon_as_those_have_told_each_other(pushers: Pushers) -> None:
    pushers["a"].join("t", "ann")
    pushers["a"].join("t", "ann")
    pushers["b"].join("t", "bob")
    pushers["b"].join("elsewhere", "bob")
    assert pushers.connections() == [2, 1, 0]
    pushers.tell()
    assert pushers.connections() == [3, 3, 3]
    assert pushers.connections("elsewhere") == [1, 1, 1]
    pushers["a"].leave("t", "ann")
    pushers["b"].leave("t", "bob")
    pushers.tell()
    assert pushers.connections() == [1, 1, 1]


def test_a_name_is_here_while_it_has_a_socket_on_any_pusher(pushers: Pushers) -> None:
    for pusher in (pushers["a"], pushers["a"], pushers["b"]):
        pusher.join("t", "ann")
    pushers.tell()

    def names() -> list[set[str]]:
        pushers.tell()
        return [set(pusher.crowd("t", pushers.now).names) for pusher in pushers.living]

    pushers["a"].leave("t", "ann")
    assert names() == [{"ann"}] * 3
    pushers["a"].leave("t", "ann")
    assert names() == [{"ann"}] * 3
    pushers["b"].leave("t", "ann")
    assert names() == [set()] * 3


def test_sockets_without_a_name_are_counted_and_not_named(pushers: Pushers) -> None:
    for name in (ANYONE, ANYONE, "ann"):
        pushers["a"].join("t", name)
    pushers.tell()
    for pusher in pushers.living:
        assert pusher.crowd("t", pushers.now) == Crowd(3, frozenset({"ann"}), unlisted=0, typing=frozenset())


def test_a_killed_pusher_counts_for_nothing_within_two_seconds(pushers: Pushers) -> None:
    pushers["a"].join("t", "ann")
    pushers.wait(5)
    assert pushers.connections() == [1, 1, 1]
    pushers.kill("a")
    killed = pushers.now
    while pushers.connections() != [0, 0]:
        pushers.wait(0.1)
    assert pushers.now - killed < 2
    assert BEAT < SILENCE < 2


@pytest.mark.parametrize("tenths", range(10))
def test_one_that_stalls_for_a_second_goes_on_counting_and_nobody_has_left(pushers: Pushers, tenths: int) -> None:
    """Also where that begins just before it would have given a sign of life."""
    pushers["a"].join("t", "ann")
    pushers.wait(5 + tenths / 10)
    for pusher in pushers.living:
        pusher.changed(pushers.now)
    slow = pushers["a"]
    pushers.living.remove(slow)
    pushers.wait(1)
    assert pushers.connections() == [1, 1]
    pushers.living.append(slow)
    pushers.tell()
    assert pushers.connections() == [1, 1, 1]
    assert not any(pusher.changed(pushers.now) for pusher in pushers.living)


def test_the_sockets_of_one_that_falls_silent_keep_their_places_for_some_seconds(pushers: Pushers) -> None:
    pushers["a"].join("t", "ann")
    pushers["b"].join("t", "bob")
    pushers.wait(5)
    assert pushers["b"].occupied("t", pushers.now) == 2
    pushers.kill("a")
    pushers.wait(2)
    assert (pushers["b"].connections("t", pushers.now), pushers["b"].occupied("t", pushers.now)) == (1, 2)
    pushers.wait(HELD - 1.5)
    assert pushers["b"].occupied("t", pushers.now) == 1


def test_one_that_was_only_slow_counts_again_with_all_that_it_had(pushers: Pushers) -> None:
    pushers["a"].join("t", "ann")
    pushers.wait(1)
    slow = pushers["a"]
    pushers.living.remove(slow)
    pushers.wait(KEPT - 5)
    assert pushers.connections() == [0, 0]
    pushers.living.append(slow)
    pushers.tell()
    assert pushers.connections() == [1, 1, 1]


def test_one_that_is_gone_for_good_is_forgotten(pushers: Pushers) -> None:
    pushers.kill("a")
    pushers.wait(KEPT + 2)
    for pusher in pushers.living:
        pusher.changed(pushers.now)
        assert len(pusher._others) == 1


def test_a_newcomer_hears_what_all_others_have(pushers: Pushers) -> None:
    pushers["a"].join("t", "ann")
    pushers["b"].join("t", "bob")
    pushers.wait(5)
    newcomer = pushers.start()
    newcomer.join("t", "carl")
    pushers.wait(0.3)
    assert pushers.connections() == [3, 3, 3, 3]
    assert newcomer.crowd("t", pushers.now).names == {"ann", "bob", "carl"}


def test_a_change_that_one_misses_is_made_good_within_two_seconds(pushers: Pushers) -> None:
    pushers["a"].join("t", "ann")
    pushers["a"].join("gone", "ann")
    pushers.tell()
    pushers["a"].join("t", "bob")
    pushers["a"].leave("gone", "ann")
    pushers.tell(deaf=pushers["b"])
    assert pushers.connections() == [2, 1, 2]
    pushers.wait(1.5)
    assert pushers.connections() == [2, 2, 2]
    assert pushers.connections("gone") == [0, 0, 0]


def test_who_leaves_while_somebody_asks_is_gone_for_those_who_heard_all_before_too(pushers: Pushers) -> None:
    pushers["a"].join("t", "ann")
    pushers.tell()
    pushers["a"].hear(SocketsCounted(pusher=UUID(int=99), number=1, anew=True, asks=True), pushers.now)
    pushers["a"].leave("t", "ann")
    pushers.tell()
    assert pushers.connections() == [0, 0, 0]


def test_a_subscription_that_was_interrupted_asks_everybody(pushers: Pushers) -> None:
    pushers["a"].join("t", "ann")
    pushers.tell(deaf=pushers["b"])
    pushers["b"].doubt()
    pushers.wait(0.2)
    assert pushers.connections() == [1, 1, 1]


def test_whoever_misses_every_other_report_of_a_busy_pusher_asks_now_and_then() -> None:
    busy, pusher = UUID(int=1), Attendance(UUID(int=2))
    asked = 0
    for step in range(100):
        now = step * 0.1
        pusher.hear(SocketsCounted(pusher=busy, number=2 * step), now)
        asked += sum(report.asks for report in pusher.reports(now))
    assert 9 <= asked * ASKING <= 11


def test_where_nothing_happens_a_pusher_gives_a_sign_of_life_now_and_then(pushers: Pushers) -> None:
    pushers.wait(2)
    pushers.told.clear()
    pushers.wait(10)
    assert 0.8 <= len(pushers.told) * BEAT / (3 * 10) <= 1.1
    assert not any(report.threads or report.anew or report.asks for report in pushers.told)


def test_changes_are_gathered_into_one_report(pushers: Pushers) -> None:
    pushers.told.clear()
    for number in range(1000):
        pushers["a"].join("t", f"n{number}")
    pushers.tell()
    (told,) = [thread for report in pushers.told for thread in report.threads]
    assert (told.connections, len(told.names), told.unlisted) == (1000, ROSTER, 1000 - ROSTER)
    assert pushers["b"].crowd("t", pushers.now).unlisted == 1000 - ROSTER


def test_a_crowd_that_comes_and_goes_is_told_of_at_a_bounded_rate_and_soon_enough(pushers: Pushers) -> None:
    a, b = pushers["a"], pushers["b"]
    for number in range(ROSTER - 1):
        a.join("t", f"{number:0100}")
    pushers.wait(1)
    pushers.told.clear()
    began, right = pushers.now, pushers.now
    for number in range(200):
        (a.leave if number % 2 else a.join)("t", "ann")
        pushers.tell()
        if b.connections("t", pushers.now) == a.connections("t", pushers.now):
            right = pushers.now
        assert pushers.now - right < PATIENCE
    bodies = [encode([report]) for report in pushers.told]
    assert sum(map(len, bodies)) < 1.2 * PACE * (pushers.now - began)


def test_however_much_changes_a_change_is_told_and_life_shown_in_time(pushers: Pushers) -> None:
    a = pushers["a"]
    for _ in range(3):
        for number in range(20):
            for name in range(ROSTER):
                a.join(f"t{number}", f"{name:0128}")
        a.join("t", "ann")
        pushers.tell()
        began = pushers.now
        while pushers.connections() != [a.connections("t", pushers.now)] * 3:
            pushers.wait(0.1)
            assert all(
                pusher._lives(other, pushers.now) for pusher in pushers.living for other in pusher._others.values()
            )
        assert pushers.now - began <= PATIENCE + 0.2
    assert PATIENCE < ASKING


@pytest.mark.parametrize("length", [1, 128])
def test_all_that_a_pusher_has_goes_in_bodies_of_a_quarter_of_a_mebibyte(pushers: Pushers, length: int) -> None:
    for number in range(5_000):
        pushers["a"].join(f"{number:0{length}}", '"' * length)
    for number in range(ROSTER + 1):
        pushers["a"].join("t", f"{number:0{length}}")
    pushers.told.clear()
    pushers.tell()
    bodies = [encode([report]) for report in pushers.told]
    assert len(bodies) > 1
    assert max(map(len, bodies)) <= 256 * 1024
    assert [event for body in bodies for event in decode(body)] == pushers.told
    assert pushers.connections("4999".zfill(length)) == [1, 1, 1]
    newcomer = pushers.start()
    pushers.wait(PATIENCE + 0.3)
    assert newcomer.connections("4999".zfill(length), pushers.now) == 1
    assert newcomer.connections("t", pushers.now) == ROSTER + 1


def test_one_thread_with_the_longest_names_fits_into_a_report() -> None:
    assert (ROSTER + TYPISTS) * (128 + 3) < REPORT


def test_somebody_types_until_he_stops_leaves_or_does_not_say_so_again(pushers: Pushers) -> None:
    def typing() -> list[set[str]]:
        for pusher in pushers.living:
            pusher.changed(pushers.now)
        pushers.tell()
        return [set(pusher.crowd("t", pushers.now).typing) for pusher in pushers.living]

    for name in ("ann", "bob", "carl", "dora"):
        pushers["a"].join("t", name)
        pushers["a"].type("t", name, pushers.now)
    assert typing() == [{"ann", "bob", "carl", "dora"}] * 3
    pushers["a"].stop_typing("t", "ann")
    pushers["a"].leave("t", "bob")
    assert typing() == [{"carl", "dora"}] * 3
    pushers.wait(TYPING - 1)
    pushers["a"].type("t", "dora", pushers.now)
    pushers.wait(2)
    assert typing() == [{"dora"}] * 3
    pushers.wait(TYPING)
    assert typing() == [set()] * 3
    assert not pushers["a"]._expiries


def test_who_gave_no_name_is_not_shown_as_typing_since_one_would_speak_for_all(pushers: Pushers) -> None:
    for name in (ANYONE, ANYONE, "ann"):
        pushers["a"].join("t", name)
        pushers["a"].type("t", name, pushers.now)
    pushers.tell()
    assert [set(pusher.crowd("t", pushers.now).typing) for pusher in pushers.living] == [{"ann"}] * 3
    pushers["a"].stop_typing("t", ANYONE)
    pushers["a"].leave("t", ANYONE)
    assert pushers["a"].crowd("t", pushers.now) == Crowd(2, frozenset({"ann"}), unlisted=0, typing=frozenset({"ann"}))


def test_who_types_on_and_on_is_told_once(pushers: Pushers) -> None:
    pushers["a"].join("t", "ann")
    pushers["a"].type("t", "ann", pushers.now)
    pushers.tell()
    pushers.told.clear()
    for _ in range(20):
        pushers["a"].type("t", "ann", pushers.now)
        pushers.wait(0.1)
        assert not pushers["b"].changed(pushers.now) - {"t"}
    assert not any(report.threads for report in pushers.told)


def test_who_has_two_sockets_goes_on_typing_when_one_of_them_leaves(pushers: Pushers) -> None:
    pushers["a"].join("t", "ann")
    pushers["a"].join("t", "ann")
    pushers["a"].type("t", "ann", pushers.now)
    pushers["a"].leave("t", "ann")
    assert pushers["a"].crowd("t", pushers.now).typing == {"ann"}
    pushers["a"].leave("t", "ann")
    assert not pushers["a"].crowd("t", pushers.now).typing


def test_a_thread_changes_by_its_own_sockets_by_others_and_by_their_silence(pushers: Pushers) -> None:
    for pusher in pushers.living:
        pusher.changed(pushers.now)
    a, b = pushers["a"], pushers["b"]
    a.join("t", "ann")
    assert (a.changed(pushers.now), b.changed(pushers.now)) == ({"t"}, set())
    pushers.tell()
    assert (a.changed(pushers.now), b.changed(pushers.now)) == (set(), {"t"})
    pushers.wait(5)
    assert b.changed(pushers.now) == set()
    pushers.kill("a")
    pushers.wait(SILENCE + 0.1)
    assert b.changed(pushers.now) == {"t"}
    assert b.changed(pushers.now) == set()
    pushers.living.append(a)
    pushers.wait(BEAT)
    assert b.changed(pushers.now) == {"t"}


def test_it_is_looked_at_again_when_a_report_is_due_somebody_stops_typing_or_a_pusher_falls_silent() -> None:
    pusher = Attendance(UUID(int=1))
    pusher.reports(100.0)
    assert pusher.due == 100.0 + BEAT
    pusher.hear(SocketsCounted(pusher=UUID(int=2), number=1, anew=True), 98.7)
    assert pusher.due == 98.7 + SILENCE
    pusher.changed(98.8 + SILENCE)
    assert pusher.due == 100.0 + BEAT
    for number in range(ROSTER):
        pusher.join("t", f"{number:0100}")
    assert len(pusher.reports(100.0)) == 1
    pusher.join("t", "ann")
    assert 100.1 < pusher.due < 100.3  # since there was much to tell just now
    pusher.type("t", "ann", 94.0)
    assert pusher.due == 94.0 + TYPING


def test_it_is_stirred_by_changes_and_questions_and_not_by_signs_of_life(pushers: Pushers) -> None:
    a, b = pushers["a"], pushers["b"]

    def stirred(by: Attendance) -> bool:
        was = by.stirred.is_set()
        by.changed(pushers.now)
        pushers.tell()
        by.stirred.clear()
        return was

    for pusher in pushers.living:
        stirred(pusher)
    pushers.wait(10)
    assert not stirred(a)
    a.join("t", "ann")
    assert stirred(a)
    assert stirred(b)
    pushers.tell()
    assert not stirred(b)
    b.doubt()
    assert stirred(b)
    assert stirred(a)


def test_nothing_is_kept_of_threads_that_everybody_left(pushers: Pushers) -> None:
    for number in range(100):
        pushers["a"].join(f"t{number}", "ann")
        pushers["a"].type(f"t{number}", "ann", pushers.now)
        pushers.tell()
        pushers["a"].leave(f"t{number}", "ann")
    pushers.tell()
    for pusher in pushers.living:
        assert not pusher._own
        assert not pusher._expiries
        assert not any(other.threads for other in pusher._others.values())
