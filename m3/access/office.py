"""Where it is changed who may do what."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from m3.access.access import Access
from m3.access.accounts import Accounts
from m3.access.invites import Invites
from m3.access.memberships import Memberships
from m3.access.passwords import Passwords
from m3.access.sign_ins import SignIns
from m3.access.sign_ups import SignUps
from m3.settings import Settings


@dataclass(frozen=True, slots=True)
class Office:
    """One for each gateway of a room that asks who somebody is."""

    sign_ins: SignIns
    sign_ups: SignUps
    accounts: Accounts
    memberships: Memberships
    invites: Invites

    @classmethod
    @contextmanager
    def open(cls, settings: Settings, access: Access) -> Iterator["Office"]:
        with Passwords.open() as passwords:
            sign_ins = SignIns(access, passwords, ttl=settings.sign_in_ttl)
            invites = Invites(access.directory, change=access.change, forget=access.forget, presented=access.presented)
            yield cls(
                sign_ins,
                SignUps(access, passwords, sign_ins, invites),
                Accounts(access.directory, passwords, change=access.change, forget=access.forget),
                Memberships(access.directory, change=access.change, forget=access.forget),
                invites,
            )
