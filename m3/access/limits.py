"""How often somebody may do something, and the only importer of limits.

Each limit has a window of time that begins with the first request in it: it takes one number for whoever asks, can be
counted in one statement of the database, and can be told to a client, who then knows when to come again. In the worst
case twice as much comes in a moment, at the end of one window and the beginning of the next.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic
from typing import Literal

from limits import RateLimitItem, parse_many
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from m3 import metrics
from m3.access.principals import Principal
from m3.addresses import counted_as
from m3.errors import StartError, TooOften
from m3.settings import Settings
from m3.store import Store
from m3.store.rates import Rates
from m3.threads import DAY

#: What is counted in the memory of each process.
What = Literal["post", "batch", "socket_message", "socket", "ticket"]
#: The setting of each.
SETTINGS: dict[What, str] = {
    "post": "limit_posts",
    "batch": "limit_batches",
    "socket_message": "limit_socket_messages",
    "socket": "limit_sockets",
    "ticket": "limit_tickets",
}
#: So many times as much may come from one address, behind which there may be many people.
PER_ADDRESS = 10
#: Most counters of each limit that are kept in memory. Past them the oldest window is forgotten.
MAX_COUNTERS = 20_000
#: Seconds between removals of windows in the database that are over.
SWEEP_INTERVAL = 60.0

Clock = Callable[[], float]


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
        self._limits = {what: _Limit(_rate(settings, name), _InMemory(clock), clock) for what, name in SETTINGS.items()}
        self._counted_together = _InDatabase(store, clock)
        self._logins = _Limit(_rate(settings, "limit_logins"), self._counted_together, clock)

    async def hit(self, what: What, principal: Principal, address: str, cost: int = 1) -> Allowance | None:
        """Count ``cost`` of them for the principal and for the address, or raise TooOften and count nothing. What alone
        is more than the limit takes all of it."""
        if not self._required:
            return None
        return await self._limits[what].take(f"{principal.tenant}/{principal.id}", counted_as(address), cost)

    async def check_login(self, tenant: str, name: str, address: str) -> Allowance | None:
        """Before a password is looked at. Raises TooOften and StoreUnavailable.

        Each attempt counts as wrong until it is shown to be right, or any number that come in the same moment would
        pass. Names count alike whether or not somebody has them."""
        if not self._required:
            return None
        try:
            return await self._logins.count(_account(tenant, name), counted_as(address))
        except TooOften:
            metrics.LOGINS.labels(TooOften.code).inc()
            raise

    async def succeeded_login(self, tenant: str, name: str, address: str) -> None:
        """The password was right: the account has all its attempts again, and the address the one that this took."""
        if self._required:
            await self._logins.forget(_account(tenant, name))
            await self._counted_together.decr(self._logins.key_of_address(counted_as(address)))

    async def untried_login(self, tenant: str, name: str, address: str) -> None:
        """The password was not looked at: both have the attempt again."""
        if self._required:
            await self._counted_together.decr(self._logins.key_of_one(_account(tenant, name)))
            await self._counted_together.decr(self._logins.key_of_address(counted_as(address)))


def check_rates(settings: Settings) -> None:
    """Raises StartError for a setting that is no rate."""
    for name in (*SETTINGS.values(), "limit_logins"):
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


def _account(tenant: str, name: str) -> str:
    """Of one length, whatever was said to be a name."""
    return sha256(f"{tenant}/{name}".encode(errors="surrogatepass")).hexdigest()


class _Limit:
    """One rate, for whoever asks and tenfold for their address, counted in one place."""

    def __init__(self, rate: RateLimitItem, counters: Storage, clock: Clock) -> None:
        self._of_one = rate
        self._of_address = type(rate)(rate.amount * PER_ADDRESS, rate.multiples, "address")
        self._limiter = FixedWindowRateLimiter(counters)
        self._clock = clock

    async def take(self, one: str, address: str, cost: int) -> Allowance:
        """Count for both, or for none. In memory nothing comes in between."""
        cost = min(cost, self._of_one.amount)
        both = (self._of_one, one), (self._of_address, address)
        for rate, who in both:
            if not await self._limiter.test(rate, who, cost=cost):
                raise await self._too_often(rate, who)
        for rate, who in both:
            await self._limiter.hit(rate, who, cost=cost)
        return await self._left(one, address)

    async def count(self, one: str, address: str) -> Allowance:
        """Count for the address, and where that may for the one: it must not use up what others leave to them."""
        for rate, who in (self._of_address, address), (self._of_one, one):
            if not await self._limiter.hit(rate, who):
                raise await self._too_often(rate, who)
        return await self._left(one, address)

    async def forget(self, one: str) -> None:
        await self._limiter.clear(self._of_one, one)

    def key_of_one(self, one: str) -> str:
        return self._of_one.key_for(one)

    def key_of_address(self, address: str) -> str:
        return self._of_address.key_for(address)

    async def _left(self, one: str, address: str) -> Allowance:
        """Of the two the one that is used up first."""
        of_one, of_address = await self._stand(self._of_one, one), await self._stand(self._of_address, address)
        return of_address if of_address.remaining < of_one.remaining else of_one

    async def _too_often(self, rate: RateLimitItem, who: str) -> TooOften:
        metrics.REFUSALS.labels(TooOften.code).inc()
        return TooOften(rate.amount, rate.get_expiry(), (await self._stand(rate, who)).reset)

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
