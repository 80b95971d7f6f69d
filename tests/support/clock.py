"""A clock that only the test moves."""

from dataclasses import dataclass


@dataclass
class Clock:
    """Tells the seconds ``now``."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now
