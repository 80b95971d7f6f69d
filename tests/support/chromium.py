"""A real Chromium, driven by Playwright: the machine's own, or Debian's package."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

from tests.support.packages import Say, install

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
#: What is needed of fonts: one that has Chinese.
PACKAGES = ("chromium", "fonts-noto-cjk")


class NoChromiumError(Exception):
    """None is to be had, for the reason in its text."""


def executable(say: Say) -> str:
    """Where it is. Raises NoChromiumError."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    if all(install(package, say) for package in PACKAGES) and (found := shutil.which(NAMES[0])):
        return found
    raise NoChromiumError("install Chromium, or run as root on Debian or Ubuntu, which has it installed")


@asynccontextmanager
async def chromium(say: Say) -> AsyncIterator[Browser]:
    """A browser for as long as a block. Raises NoChromiumError."""
    path = executable(say)
    # Its sandbox does not work for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()
