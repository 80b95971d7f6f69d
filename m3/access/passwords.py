"""Passwords, hashed with argon2id. The only importer of argon2.

A hash takes tens of milliseconds and 64 MiB on purpose: it runs in a thread, and only so many at a time.
"""

import asyncio
import secrets
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import argon2

from m3.errors import TooManySignIns, Unsuitable

SHORTEST, LONGEST = 8, 256
LENGTH = f"A password has {SHORTEST} to {LONGEST} characters."
#: Hashes at a time.
PLACES = 2
#: Most that wait for one of those, and the seconds that it may take until theirs is done.
WAITING = 64
PATIENCE = 10.0

Result = TypeVar("Result")


def _typed(password: str) -> bytes:
    """The same for the same characters, whatever keyboard they come from."""
    return unicodedata.normalize("NFKC", password).encode(errors="surrogatepass")


def suitable(password: str) -> str:
    """The password. Raises Unsuitable where it is too short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise Unsuitable(LENGTH)
    return password


def one_time_password() -> str:
    return secrets.token_urlsafe(15)


class Passwords:
    """Raises TooManySignIns where too many wait."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._hasher = argon2.PasswordHasher()
        self._threads = threads
        self._asked = 0
        self._nobodys: str | None = None

    @classmethod
    @contextmanager
    def open(cls) -> Iterator["Passwords"]:
        threads = ThreadPoolExecutor(PLACES, thread_name_prefix="passwords")
        try:
            yield cls(threads)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        return await self._in_a_thread(lambda: self._hasher.hash(_typed(password)))

    async def fits(self, password: str, hashed: str | None) -> bool:
        """Whether it is the password. Where there is none to compare with, it takes as long to say so."""

        def verify() -> bool:
            nobodys = self._of_nobody()  # in any case, or the first to ask for nobody's would wait longer
            return self._verify(hashed or nobodys, password)

        return await self._in_a_thread(verify) and bool(hashed)

    def _verify(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, _typed(password))
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False

    def _of_nobody(self) -> str:
        if self._nobodys is None:
            self._nobodys = self._hasher.hash(secrets.token_urlsafe(32))
        return self._nobodys

    async def _in_a_thread(self, work: Callable[[], Result]) -> Result:
        if self._asked >= PLACES + WAITING:
            raise TooManySignIns
        self._asked += 1
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            raise TooManySignIns from None
        finally:
            self._asked -= 1
