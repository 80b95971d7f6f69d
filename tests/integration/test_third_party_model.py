"""The whole room with the model of somebody else's server: LiteLLM's proxy, with replies from its configuration."""

import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import httpx2
import pytest
import stamina
from pydantic import SecretStr

from m3.room import run_room
from m3.settings import Settings
from m3.web import bind
from services.agent.model import ModelFailed, open_model
from services.agent.spoken import Spoken
from tests.support.client import client, history, post
from tests.support.until import DEADLINE, until_blocking

LITELLM = Path(__file__).parents[2] / ".venv-litellm" / "bin" / "litellm"
#: Seconds that it may take to start: it imports for long, the first time above all.
START_DEADLINE = 150.0
KEY = "sk-of-the-room"
REPLY = "The moon listens. 月亮在听。"

pytestmark = pytest.mark.timeout(240)

Rooms = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]


@pytest.fixture(scope="module")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a LiteLLM proxy that answers by itself and calls nobody."""
    if not LITELLM.exists():
        missing = "no .venv-litellm; `make .venv-litellm/ready` makes it"
        if os.environ.get("CI"):
            pytest.fail(f"CI must test with a third party's server: {missing}")
        pytest.skip(f"NOT TESTED WITH A THIRD PARTY'S SERVER: {missing}")
    folder = tmp_path_factory.mktemp("litellm")
    (folder / "config.json").write_text(json.dumps(_configuration()))  # YAML too
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [LITELLM, "--host", "127.0.0.1", "--port", str(port), "--config", folder / "config.json"],
            env=_environment(folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            until_blocking(lambda: process.poll() is not None or _lives(address), within=START_DEADLINE)
            assert process.poll() is None, (folder / "output").read_text()
            yield f"{address}/v1"
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # whatever of it is left
            process.wait()


def _configuration() -> dict[str, object]:
    def model(name: str, reply: str) -> dict[str, object]:
        return {"model_name": name, "litellm_params": {"model": "openai/any", "api_key": "any", "mock_response": reply}}

    return {
        "model_list": [model("moon", REPLY), model("busy", "litellm.RateLimitError")],
        "router_settings": {"num_retries": 0},
        "general_settings": {"master_key": KEY},
    }


def _environment(home: Path) -> dict[str, str]:
    """What it would fetch it takes from its package, and what it would call all the same is a closed port."""
    from_package = ("MODEL_COST_MAP", "ANTHROPIC_BETA_HEADERS", "BLOG_POSTS", "POLICY_TEMPLATES", "AUTOROUTER_PRESETS")
    return (
        {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONUTF8": "1"}
        | {f"LITELLM_LOCAL_{name}": "True" for name in from_package}
        | dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:1")
    )


def _lives(address: str) -> bool:
    try:
        return httpx2.get(f"{address}/health/liveliness", timeout=5, trust_env=False).is_success
    except httpx2.TransportError:
        return False


@pytest.fixture
def rooms(third_party: str, database_url: str) -> Rooms:
    """Opens whole rooms that use the third party's server, and yields a client of each."""
    return partial(_room, third_party, database_url)


@asynccontextmanager
async def _room(
    third_party: str, database_url: str, *, model: str, key: str = KEY
) -> AsyncIterator[httpx2.AsyncClient]:
    settings = Settings.model_validate(
        {
            "port": 0,
            "database_url": database_url,
            "llm_base_url": third_party,
            "llm_model": model,
            "llm_api_key": key,
        }
    )
    async with run_room(settings) as welcome:
        address = re.search(r"http://[^ /\n]+", welcome)
        assert address
        async with client(address.group()) as http:
            yield http


async def test_the_room_answers_with_the_model_of_a_third_partys_server(rooms: Rooms) -> None:
    async with rooms(model="moon") as http:
        for said in ("who listens?", "谁在听"):
            assert (await post(http, said, thread_id="night"))["response"] == REPLY
        told = [(message["role"], message["content"]) for message in await history(http, "night")]
        assert told == [("user", "who listens?"), ("assistant", REPLY), ("user", "谁在听"), ("assistant", REPLY)]


async def test_a_third_partys_server_is_heard_while_it_speaks(third_party: str) -> None:
    pieces: list[str] = []
    spoken = Spoken(lambda: pieces.append(spoken.take_new()))
    async with open_model(third_party, name="moon", api_key=SecretStr(KEY), turn_timeout=DEADLINE) as model:
        usage = await model.reply([{"role": "user", "content": "who listens?"}], spoken)
    assert len(pieces) > 1
    assert "".join(pieces) == spoken.text == REPLY
    assert spoken.attempts == 1
    assert usage
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0


async def test_a_third_partys_server_that_is_busy_is_asked_again(third_party: str) -> None:
    spoken = Spoken(lambda: None)
    async with open_model(third_party, name="busy", api_key=SecretStr(KEY), turn_timeout=DEADLINE) as model:
        with stamina.set_testing(True, attempts=2), pytest.raises(ModelFailed, match="status 429") as failure:
            await model.reply([{"role": "user", "content": "who listens?"}], spoken)
    assert (failure.value.kind, spoken.attempts) == ("rate_limit", 2)


@pytest.mark.parametrize(
    ("model", "key", "status"),
    [
        pytest.param("unheard-of", KEY, "40.", id="a model it does not have"),
        pytest.param("busy", KEY, "429", id="too many requests"),
        pytest.param("moon", "sk-of-another", "40.", id="a wrong key"),
    ],
)
async def test_a_refusal_of_a_third_partys_server_is_told_in_a_sentence(
    rooms: Rooms, model: str, key: str, status: str
) -> None:
    async with rooms(model=model, key=key) as http:
        answer = await http.post("/api/chat", json={"message": "hi"})
        assert answer.status_code == 502
        refusal = answer.json()
        assert refusal["code"] == "model_failed"
        assert re.fullmatch(rf"The model's server answered with status {status}(: [^.]+)?\.", refusal["message"])
        fate = (await http.get(f"/api/messages/{refusal['message_id']}")).json()
        assert (fate["fate"], fate["reason"]) == ("failed", refusal["message"])
