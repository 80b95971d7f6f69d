"""``python -m tests.browser.screenshots``: the README's pictures, of a real room in which a scripted model answers."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, ViewportSize, expect

from tests.support.chromium import chromium
from tests.support.client import client, history, socket
from tests.support.processes import Process, processes
from tests.support.scripted_model import Behaviour, Script, prompt, scripted_model, streams, streams_until
from tests.support.until import until

PICTURES = Path(__file__).parents[2] / "docs/pictures"
THREAD = "kitchen"
DESKTOP: ViewportSize = {"width": 1280, "height": 960}
PHONE: ViewportSize = {"width": 390, "height": 844}
#: Of a phone two pixels for each of its own, so that its picture is as sharp as a desktop's is large.
DENSITY = {1280: 1, 390: 2}

Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")


@dataclass(frozen=True)
class Scene:
    """What is said: by people and a livestream, in order, and what the agent answers to what contains a text."""

    locale: str
    you: str
    said: tuple[tuple[str, str | tuple[str, ...]], ...]
    answers: tuple[tuple[str, str], ...]
    asked: str
    growing: tuple[str, ...]


ENGLISH = Scene(
    locale="en-US",
    you="Ann",
    said=(
        ("Mei", "Good evening! What are we cooking tonight?"),
        ("livestream", ("noor: hi everyone 👋", "leo99: is that a cast iron pan?", "sam: 666", "elif: recipe please!")),
        ("Tomasz", "My oil always smokes. What temperature do I want?"),
    ),
    answers=(
        ("What are we cooking", "**Mapo tofu**, and it takes twenty minutes. Have the rice on already?"),
        (
            "recipe please",
            (
                "Welcome, all! It is cast iron, yes. For the recipe:\n\n"
                "1. Brown 150 g of minced meat, or mushrooms\n2. Add two spoons of *doubanjiang*\n"
                "3. Stock, tofu, five minutes, done"
            ),
        ),
        ("temperature", "About 180 °C. Drop in a grain of rice: it should dance, and *not* smoke."),
    ),
    asked="How much is 180 °C for those with a Fahrenheit pan?",
    growing=(
        "That is ",
        "**356 °F**. ",
        "The whole of it:\n\n",
        "```python\n",
        "fahrenheit = celsius * 9 / 5 + 32\n```\n\nSo",
    ),
)
CHINESE = Scene(
    locale="zh-CN",
    you="小安",
    said=(
        ("小美", "晚上好！今天做什么菜？"),
        ("livestream", ("诺诺: 大家好 👋", "老李: 这是铸铁锅吗？", "山姆: 666", "艾丽: 求配方！")),
        ("阿强", "我家的油总是冒烟，多少度合适？"),
    ),
    answers=(
        ("今天做什么", "**麻婆豆腐**，二十分钟就好。米饭已经煮上了吗？"),
        (
            "求配方",
            "欢迎大家！没错，是铸铁锅。配方如下：\n\n1. 炒香 150 克肉末，或者蘑菇\n2. 加两勺*豆瓣酱*\n3. 加高汤和豆腐，五分钟出锅",
        ),
        ("多少度", "大约 180 °C。放一粒米进去，它会跳舞，但*不会*冒烟。"),
    ),
    asked="180 °C 换算成华氏度是多少？",
    growing=(
        "是 ",
        "**356 °F**。",
        "完整的算法：\n\n",
        "```python\n",
        "fahrenheit = celsius * 9 / 5 + 32\n```\n\n所以",
    ),
)


async def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(chromium(print))
        for scene, language in ((ENGLISH, "en"), (CHINESE, "zh")):
            for theme in THEMES:
                for viewport, device in ((DESKTOP, "desktop"), (PHONE, "phone")):
                    await _picture(browser, scene, theme, viewport, f"{device}-{theme}-{language}")
            await _picture(browser, scene, "light", DESKTOP, f"lanes-light-{language}", side_by_side=True)


@asynccontextmanager
async def _playing(scene: Scene) -> AsyncIterator[str]:
    """A room in which all of it was said; yields its address."""
    over = asyncio.Event()
    with tempfile.TemporaryDirectory(prefix="m3-pictures-") as folder, processes() as started:
        async with scripted_model(_script(scene, over)) as model:
            room = Process("up", {"DATA_DIR": folder, "LLM_BASE_URL": model.url, "LLM_MODEL": "scripted"})
            started.append(room)
            address = await asyncio.to_thread(room.address)
            await _say_all(address, scene)
            yield address
            over.set()
            await asyncio.to_thread(room.stop)


def _script(scene: Scene, over: asyncio.Event) -> Script:
    def behave(body: dict[str, Any]) -> Behaviour:
        asked = prompt(body)
        answer = next((answer for part, answer in scene.answers if part in asked), None)
        return streams_until(over, *scene.growing) if answer is None else streams(answer)

    return behave


async def _say_all(address: str, scene: Scene) -> None:
    async with client(address) as http:

        async def answered() -> bool:
            messages = await history(http, THREAD)
            return bool(messages) and messages[-1]["source"] == "assistant"

        for who, said in scene.said:
            if isinstance(said, tuple):
                batch = {"type": "messages", "messages": [{"message": one, "source": "api"} for one in said]}
            else:
                batch = {"type": "messages", "messages": [{"message": said}]}
            async with socket(address, THREAD, client=who) as speaker:
                await speaker.send(json.dumps(batch))
                await speaker.next("recorded")
                await until(answered, every=0.1)


async def _picture(  # noqa: PLR0913  # all that one picture differs by from another
    browser: Browser, scene: Scene, theme: Theme, viewport: ViewportSize, name: str, *, side_by_side: bool = False
) -> None:
    kept = {"m3.name": scene.you, "m3.view": "lanes" if side_by_side else "stream"}
    keep = f"for (const [name, value] of Object.entries({json.dumps(kept)})) localStorage[name] = JSON.stringify(value)"
    context = await browser.new_context(
        viewport=viewport,
        locale=scene.locale,
        color_scheme=theme,
        device_scale_factor=DENSITY[viewport["width"]],
        has_touch=viewport is PHONE,
    )
    async with context, _playing(scene) as room:
        await context.add_init_script(keep)
        page = await context.new_page()
        await page.goto(f"{room}/?thread={THREAD}")
        await expect(page.get_by_role("article").first).to_be_visible()
        await page.get_by_role("textbox").fill(scene.asked)
        await page.keyboard.press("Enter")
        await expect(page.locator("pre").last).to_contain_text("fahrenheit")
        await page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")


if __name__ == "__main__":
    asyncio.run(main())
