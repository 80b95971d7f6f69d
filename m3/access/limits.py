"""How often somebody may do something, and the only importer of limits.

Each limit has a window of time that begins with the first request in it: it takes one number for whoever asks, can be
counted in one statement of the database, and can be told to a client, who then knows when to come again. In the worst
case twice as much comes in a moment, at the end of one window and the beginning of the next.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic
from typing import Literal
from uuid import UUID

from limits import RateLimitItem, RateLimitItemPerMinute, parse_many
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from m3 import metrics
from m3.access.principals import Principal
from m3.addresses import ASKED_FROM, counted_as
from m3.errors import PasswordChangeNeeded, StartError, StoreUnavailable, TooManySignIns, TooOften, Unsuitable
from m3.settings import Settings
from m3.store import Store
from m3.store.rates import Rates
from m3.threads import DAY

#: What is counted in the memory of each process.
What = Literal["post", "feed", "batch", "change", "socket_message", "socket", "ticket"]
#: The setting of each.
SETTINGS: dict[What, str] = {
    "post": "limit_posts",
    "feed": "limit_feeds",
    "batch": "limit_batches",
    "change": "limit_changes",
    "socket_message": "limit_socket_messages",
    "socket": "limit_sockets",
    "ticket": "limit_tickets",
}
#: What each is to whoever is told that it was too many.
NAMES: dict[What, str] = {
    "post": "messages",
    "feed": "messages of a program",
    "batch": "batches",
    "change": "changes",
    "socket_message": "messages over sockets",
    "socket": "new sockets",
    "ticket": "tickets",
}
#: What programs say counts as fed, by whatever door: one says what a whole audience does.
SAID = frozenset(("post", "socket_message"))
#: So many times as much may come from one address, behind which there may be many people.
PER_ADDRESS = 10
#: So many times as many wrong passwords of one account are looked at when they come from many addresses.
PER_ACCOUNT = 10
#: So many right passwords of an account are looked at for each wrong one that is.
PER_WRONG = 3
#: Passwords of one account from one address that are looked at or wait for it at once.
AT_ONCE = 2
#: Credentials that are not good, from one address, in each process. Not a setting: those who are in the room show few,
#: however many they are, and go on as they are when somebody else shows many.
FAILURES = RateLimitItemPerMinute(300)
#: Most counters of each limit that are kept in memory. Past them the oldest window is forgotten.
MAX_COUNTERS = 20_000
#: Seconds between removals of windows in the database that are over.
SWEEP_INTERVAL = 60.0

Clock = Callable[[], float]
#: A rate, and who is held to it.
Bound = tuple[RateLimitItem, str]


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much is left to somebody: of ``limit`` there are ``remaining``, and in ``reset`` seconds all of it again."""

    limit: int
    remaining: int
    reset: float


class Limits:
    """What each process with a door counts. Where nobody is asked who they are, nothing is limited, and every answer is
    None. Raises StartError for a setting that is no rate."""

    def __init__(self, settings: Settings, store: Store, *, clock: Clock = monotonic) -> None:
        self._required = settings.auth_required
        self._rates = {what: _rate(settings, name) for what, name in SETTINGS.items()}
        self._rates_of_addresses = {what: _times(rate, PER_ADDRESS, "address") for what, rate in self._rates.items()}
        self._limits = {what: _Limit(_InMemory(clock), clock, NAMES[what]) for what in SETTINGS}
        self._logins = _Logins(_rate(settings, "limit_logins"), store, clock)
        self._rate_of_sign_ups = _rate(settings, "limit_sign_ups")
        self._sign_ups = _Limit(_InDatabase(store, clock), clock, "attempts to make an account")

    async def hit(self, what: What, principal: Principal, address: str, cost: int = 1) -> Allowance | None:
        """Count ``cost`` of them for the principal and for the address, or raise TooOften and count nothing. What alone
        is more than the limit takes all of it."""
        if not self._required:
            return None
        if principal.kind == "program" and what in SAID:
            what = "feed"
        rate = self._rates[what]
        of_one = rate, f"{principal.tenant}/{principal.id}"
        of_address = self._rates_of_addresses[what], counted_as(address)
        return await self._limits[what].take(of_one, of_address, cost=min(cost, rate.amount))

    @asynccontextmanager
    async def sign_up(self, address: str) -> AsyncIterator[Allowance]:
        """A block in which somebody makes an account in a room that asks who they are. What was not tried does not
        count. Raises TooOften and StoreUnavailable."""
        bound = self._rate_of_sign_ups, f"sign-ups/{counted_as(address)}"
        allowance = await self._sign_ups.count(bound)
        try:
            yield allowance
        except (Unsuitable, TooManySignIns, StoreUnavailable):
            with suppress(StoreUnavailable):
                await self._sign_ups.uncount(bound)
            raise

    @asynccontextmanager
    async def guess(
        self, tenant: str, name: str, address: str, sign_in: UUID | None = None
    ) -> AsyncIterator[Allowance | None]:
        """A block that looks at a password of the account: raises what says what it was. ``sign_in``: of whoever tells
        it besides, which others' guesses at the account are not counted with. Raises TooOften and StoreUnavailable.

        Each attempt counts as wrong until it is shown to be right, or any number that come in the same moment would
        pass. Names count alike whether or not somebody has them."""
        if not self._required:
            yield None
            return
        logins = self._logins
        guess = logins.guess(tenant, name, address, sign_in)
        with logins.looking_at(guess):
            try:
                allowance = await logins.begin(guess)
            except TooOften:
                metrics.LOGINS.labels(TooOften.code).inc()
                raise
            try:
                yield allowance
            except (TooManySignIns, StoreUnavailable):  # it was not looked at
                with suppress(StoreUnavailable):
                    await logins.take_back(guess)
                raise
            except (PasswordChangeNeeded, Unsuitable):  # the password itself was right
                await logins.was_right(guess)
                raise
            await logins.was_right(guess)


class Failures:
    """Credentials that were not good, by the address that showed them: what is made up is no principal's. In memory, as
    those that this is to keep from asking the database are many. Every method raises TooOften."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._limit = _Limit(_InMemory(clock), clock, "credentials that are not good")

    async def check(self) -> None:
        """Before the database is asked whether one is good."""
        await self._limit.check(self._bound())

    async def count(self) -> None:
        await self._limit.take(self._bound())

    def _bound(self) -> Bound:
        return FAILURES, counted_as(ASKED_FROM.get())


def check_rates(settings: Settings) -> None:
    """Raises StartError for a setting that is no rate."""
    for name in (*SETTINGS.values(), "limit_logins", "limit_sign_ups"):
        _rate(settings, name)


def _rate(settings: Settings, name: str) -> RateLimitItem:
    text = getattr(settings, name)
    try:
        (rate,) = parse_many(text)
        good = rate.amount > 0 and rate.get_expiry() <= DAY
    except ValueError:
        good = False
    if not good:
        raise StartError(
            f"{name.upper()}: must be a number of at least 1 for a time of at most a day, such as 1200/minute or "
            f"10/5 minutes, and {text!r} is not."
        )
    return rate


def _times(rate: RateLimitItem, factor: int, of: str) -> RateLimitItem:
    return type(rate)(rate.amount * factor, rate.multiples, of)


@dataclass(frozen=True, slots=True)
class _Guess:
    """At a password: what it counts under. ``own`` begins anew when it was right, and is the account together with the
    address; of ``shared``, the address as a whole and the account as a whole, it only takes itself back."""

    own: Bound
    shared: tuple[Bound, ...]
    right: Bound

    @property
    def bounds(self) -> tuple[Bound, ...]:
        return *self.shared[:1], self.own, *self.shared[1:]


class _Logins:
    """Guesses at passwords: wrong ones are counted by all processes together, right ones by each."""

    def __init__(self, rate: RateLimitItem, store: Store, clock: Clock) -> None:
        self._rate = rate
        self._counters = _InDatabase(store, clock)
        self._wrong = _Limit(self._counters, clock, "wrong passwords")
        self._right = _Limit(_InMemory(clock), clock, "passwords")
        self._looked_at: Counter[str] = Counter()

    def guess(self, tenant: str, name: str, address: str, sign_in: UUID | None) -> _Guess:
        right = _times(self._rate, PER_WRONG, "right")
        if sign_in is not None:
            return _Guess((_times(self._rate, 1, "sign-in"), sign_in.hex), (), (right, sign_in.hex))
        # Of one length, whatever was said to be a name.
        account = sha256(f"{tenant}/{name}".encode(errors="surrogatepass")).hexdigest()
        address = counted_as(address)
        return _Guess(
            (self._rate, f"{account}/{address}"),
            (
                (_times(self._rate, PER_ADDRESS, "address"), address),
                (_times(self._rate, PER_ACCOUNT, "account"), account),
            ),
            (right, account),
        )

    @contextmanager
    def looking_at(self, guess: _Guess) -> Iterator[None]:
        """A block that is one of few for the same account and address, whose hashes others would have to wait for."""
        _, who = guess.own
        if self._looked_at[who] >= AT_ONCE:
            metrics.REFUSALS.labels(TooOften.code).inc()
            metrics.LOGINS.labels(TooOften.code).inc()
            raise TooOften("passwords", AT_ONCE, 0, 1)
        self._looked_at[who] += 1
        try:
            yield
        finally:
            self._looked_at[who] -= 1
            if not self._looked_at[who]:
                del self._looked_at[who]

    async def begin(self, guess: _Guess) -> Allowance:
        await self._right.check(guess.right)
        return await self._wrong.count(*guess.bounds)

    async def take_back(self, guess: _Guess) -> None:
        await self._wrong.uncount(*guess.bounds)

    async def was_right(self, guess: _Guess) -> None:
        await self._right.hit(guess.right)
        await self._wrong.forget(guess.own)
        await self._wrong.uncount(*guess.shared)


class _Limit:
    """Counted in one place, where somebody is held to several bounds at once."""

    def __init__(self, counters: "_Counters", clock: Clock, what: str) -> None:
        self._what = what
        self._counters = counters
        self._limiter = FixedWindowRateLimiter(counters)
        self._clock = clock

    async def check(self, *bounds: Bound, cost: int = 1) -> None:
        """Raises TooOften where there is none left."""
        for rate, who in bounds:
            if not await self._limiter.test(rate, who, cost=cost):
                raise await self._too_often(rate, who)

    async def take(self, *bounds: Bound, cost: int = 1) -> Allowance:
        """Count for all, or for none. In memory nothing comes in between."""
        await self.check(*bounds, cost=cost)
        for rate, who in bounds:
            await self._limiter.hit(rate, who, cost=cost)
        return await self._left(bounds)

    async def count(self, *bounds: Bound) -> Allowance:
        """The same where others count in between: for one after the other, and where one is used up back again, which
        must not use up what others leave."""
        for number, (rate, who) in enumerate(bounds, 1):
            if not await self._limiter.hit(rate, who):
                error = await self._too_often(rate, who)
                await self.uncount(*bounds[:number])
                raise error
        return await self._left(bounds)

    async def hit(self, bound: Bound) -> None:
        """Count what was done, whether or not there was any left."""
        await self._limiter.hit(*bound)

    async def uncount(self, *bounds: Bound) -> None:
        for rate, who in bounds:
            await self._counters.decr(rate.key_for(who))

    async def forget(self, bound: Bound) -> None:
        await self._limiter.clear(*bound)

    async def _left(self, bounds: tuple[Bound, ...]) -> Allowance:
        """Of the bounds the one that is used up first."""
        return min([await self._stand(*bound) for bound in bounds], key=lambda allowance: allowance.remaining)

    async def _too_often(self, rate: RateLimitItem, who: str) -> TooOften:
        metrics.REFUSALS.labels(TooOften.code).inc()
        return TooOften(self._what, rate.amount, rate.get_expiry(), (await self._stand(rate, who)).reset)

    async def _stand(self, rate: RateLimitItem, who: str) -> Allowance:
        reset, remaining = await self._limiter.get_window_stats(rate, who)
        return Allowance(rate.amount, remaining, max(0.0, reset - self._clock()))


class _Counters(Storage):
    """What the package asks of a place to count in. Ends of windows are told by the clock of this process."""

    STORAGE_SCHEME = None

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return ()

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        raise NotImplementedError

    async def decr(self, key: str) -> None:
        """One less, if its window is not over."""
        raise NotImplementedError


@dataclass(slots=True)
class _Window:
    amount: int
    ends: float


class _InMemory(_Counters):
    """For windows of one length: those that began first are over first."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._windows: dict[str, _Window] = {}

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        window = self._running(key)
        if window is None:
            self._make_room()
            window = self._windows[key] = _Window(0, self._clock() + expiry)
        window.amount += amount
        return window.amount

    async def get(self, key: str) -> int:
        window = self._running(key)
        return window.amount if window else 0

    async def get_expiry(self, key: str) -> float:
        window = self._running(key)
        return window.ends if window else self._clock()

    async def clear(self, key: str) -> None:
        self._windows.pop(key, None)

    def _running(self, key: str) -> _Window | None:
        window = self._windows.get(key)
        if window is not None and window.ends <= self._clock():
            del self._windows[key]
            return None
        return window

    def _make_room(self) -> None:
        """Remove what is over, and the oldest if there are too many."""
        now = self._clock()
        while self._windows:
            oldest = next(iter(self._windows))
            if self._windows[oldest].ends > now and len(self._windows) < MAX_COUNTERS:
                break
            del self._windows[oldest]


class _InDatabase(_Counters):
    """For all processes together. Every method raises StoreUnavailable."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(clock)
        self._rates = Rates(store)
        self._next_sweep = clock()

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        if self._clock() >= self._next_sweep:
            self._next_sweep = self._clock() + SWEEP_INTERVAL
            await self._rates.sweep()
        return await self._rates.count(key, amount, expiry)

    async def decr(self, key: str) -> None:
        """One less, if its window is not over."""
        await self._rates.uncount(key)

    async def get(self, key: str) -> int:
        amount, _ = await self._rates.look(key)
        return amount

    async def get_expiry(self, key: str) -> float:
        _, left = await self._rates.look(key)
        return self._clock() + left

    async def clear(self, key: str) -> None:
        await self._rates.forget(key)
