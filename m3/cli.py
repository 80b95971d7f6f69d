"""The command line: ``m3 up`` for the whole room, or one command a service."""

import asyncio
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from functools import partial
from typing import Annotated, Literal, NoReturn

import structlog
import typer
import uvloop

from m3 import commands, room, upkeep
from m3.access.invites import LONGEST, USUAL
from m3.access.rules import InvitedRole, Visibility
from m3.errors import StartError
from m3.logs import set_up_logs
from m3.settings import Settings, read_settings

app = typer.Typer(
    help="The M3 room: people, programs and an LLM agent in one thread. Settings come from the environment.",
    no_args_is_help=True,
    add_completion=False,
)

user = typer.Typer(help="People who may sign in.", no_args_is_help=True)
key = typer.Typer(help="Programs' keys.", no_args_is_help=True)
thread = typer.Typer(help="Who finds a thread, and who is what in it.", no_args_is_help=True)
content = typer.Typer(help="What CONTENT_KEYS seal.", no_args_is_help=True)
for name, commands_of in (("user", user), ("key", key), ("thread", thread), ("content", content)):
    app.add_typer(commands_of, name=name)

Tenant = Annotated[str | None, typer.Option(help="Whose, instead of the first of TENANTS.")]
Name = Annotated[str, typer.Argument(help="What others know them by.")]
ThreadId = Annotated[str, typer.Argument(metavar="THREAD")]

log = structlog.get_logger(__name__)


@app.command()
def up() -> None:
    """Run the whole room in one process, on one port, with its own database."""
    _run(room.run_room)


@app.command()
def gateway() -> None:
    """Run the HTTP door."""
    _run(room.run_gateway)


@app.command()
def pusher() -> None:
    """Run the WebSocket door."""
    _run(room.run_pusher)


@app.command()
def recorder() -> None:
    """Run the writer of the dialogue table."""
    _run(room.run_recorder)


@app.command()
def agent() -> None:
    """Run a worker that answers with the LLM."""
    _run(room.run_agent)


@app.command()
def demo_model() -> None:
    """Run an OpenAI-compatible server that stands in for an LLM."""
    _run(room.run_demo_model)


@app.command("migrate")
def bring_up_to_date() -> None:
    """Bring the database's tables to this version, and end: first of all in an upgrade."""
    with _ending_in_a_sentence() as settings:
        print(asyncio.run(room.migrate_database(settings)))


@app.command()
def doctor(
    url: Annotated[str | None, typer.Option(help="Where clients come in, in the place of EDGE_URL.")] = None,
    hold: Annotated[float, typer.Option(min=0, max=600, help="Seconds to leave a socket silent there.")] = 3,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write for programs.")] = False,
) -> None:
    """Look at all that the room stands on, say what is wrong and what to do. Ends with 1 where something is wrong."""
    with _ending_in_a_sentence("error") as settings, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(room.examine(settings, edge_url=url, hold=hold))
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
        typer.echo(report.json() if as_json else report.text(width))  # without colours where it is no terminal
    sys.exit(0 if report.well else 1)


@user.command("add")
def add_user(
    name: Name,
    *,
    operator: Annotated[bool, typer.Option("--operator", help="Sees to others.")] = False,
    tenant: Tenant = None,
) -> None:
    """Let somebody in, and show the password of their first sign-in."""
    _at_the_desk(tenant, partial(commands.add_user, name=name, operator=operator))


@user.command("list")
def list_users(tenant: Tenant = None) -> None:
    """Show who may sign in."""
    _at_the_desk(tenant, commands.list_users)


@user.command("reset")
def reset_user(name: Name, tenant: Tenant = None) -> None:
    """Sign somebody out, and show a password for another first sign-in."""
    _at_the_desk(tenant, partial(commands.reset_user, name=name))


@user.command("operator")
def change_user(
    name: Name,
    *,
    no_more: Annotated[bool, typer.Option("--not", help="They are none any more.")] = False,
    tenant: Tenant = None,
) -> None:
    """Make somebody an operator, who sees to others."""
    _at_the_desk(tenant, partial(commands.change_user, name=name, operator=not no_more))


@user.command("revoke")
def revoke_user(name: Name, tenant: Tenant = None) -> None:
    """Sign somebody out, and let them in no more."""
    _at_the_desk(tenant, partial(commands.revoke_user, name=name))


@key.command("add")
def add_key(
    name: Name,
    threads: Annotated[list[str], typer.Option("--thread", help="What it feeds; more than one may be given.")],
    *,
    reads: Annotated[bool, typer.Option("--reads", help="It may read them too.")] = False,
    tenant: Tenant = None,
) -> None:
    """Make a key for a program, and show it."""
    _at_the_desk(tenant, partial(commands.add_key, name=name, threads=threads, reads=reads))


@key.command("list")
def list_keys(tenant: Tenant = None) -> None:
    """Show which keys there are, by their prefixes."""
    _at_the_desk(tenant, commands.list_keys)


@key.command("revoke")
def revoke_key(named: Annotated[str, typer.Argument(metavar="PREFIX|NAME")], tenant: Tenant = None) -> None:
    """Have a key be good for nothing any more."""
    _at_the_desk(tenant, partial(commands.revoke_key, named=named))


@thread.command("add")
def add_thread(
    thread_id: ThreadId,
    *,
    everybody: Annotated[bool, typer.Option("--open", help="Every account finds it.")] = False,
    owner: Annotated[str | None, typer.Option(help="A person who sees to its members.")] = None,
    tenant: Tenant = None,
) -> None:
    """Make a thread."""
    visibility: Visibility = "open" if everybody else "private"
    _at_the_desk(tenant, partial(commands.add_thread, thread_id=thread_id, visibility=visibility, owner=owner))


@thread.command("list")
def list_threads(tenant: Tenant = None) -> None:
    """Show which threads there are, and who finds them."""
    _at_the_desk(tenant, commands.list_threads)


@thread.command("open")
def open_thread(thread_id: ThreadId, tenant: Tenant = None) -> None:
    """Have every account find a thread."""
    _at_the_desk(tenant, partial(commands.show_thread, thread_id=thread_id, visibility="open"))


@thread.command("close")
def close_thread(thread_id: ThreadId, tenant: Tenant = None) -> None:
    """Have none but its members find a thread."""
    _at_the_desk(tenant, partial(commands.show_thread, thread_id=thread_id, visibility="private"))


@thread.command("member")
def change_member(
    thread_id: ThreadId,
    name: Name,
    role: Annotated[
        Literal["owner", "member", "reader", "feeder", "none"], typer.Argument(help="What they are from now on.")
    ],
    *,
    program: Annotated[bool, typer.Option("--program", help="It is a key's name.")] = False,
    tenant: Tenant = None,
) -> None:
    """Say what somebody is in a thread; a feeder is a program in any case."""
    changing = partial(commands.change_member, thread_id=thread_id, name=name, role=role, program=program)
    _at_the_desk(tenant, changing)


@thread.command()
def invite(
    thread_id: ThreadId,
    role: Annotated[InvitedRole, typer.Option(help="What it makes of who accepts it.")] = "member",
    days: Annotated[int, typer.Option(min=1, max=LONGEST, help="How long it is good.")] = USUAL,
    tenant: Tenant = None,
) -> None:
    """Make an invite to a thread, and show it."""
    _at_the_desk(tenant, partial(commands.invite, thread_id=thread_id, role=role, days=days))


@content.command()
def rotate() -> None:
    """Wrap all threads' keys with the first of CONTENT_KEYS, so that the others can go."""
    _see_to_content(upkeep.rotate)


@content.command()
def seal() -> None:
    """Seal what was said before CONTENT_KEYS were set."""
    _see_to_content(upkeep.seal)


@content.command()
def index() -> None:
    """Have old messages found by the search."""
    _see_to_content(upkeep.index)


@content.command()
def verify() -> None:
    """Open all that is sealed. Ends with 1 where something does not open, or is not sealed."""
    _see_to_content(upkeep.verify)


def main() -> None:
    app()


def _run(service: Callable[[Settings], AbstractAsyncContextManager[str]]) -> NoReturn:
    with _ending_in_a_sentence() as settings, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        _allow_many_files()
        runner.run(_until_stopped(service(settings)))
    sys.exit(0)


def _at_the_desk(tenant: str | None, command: commands.Command) -> None:
    """Have it done in the database of the room, whether that runs or not, and say what came of it."""
    with _ending_in_a_sentence("error") as settings:
        print(asyncio.run(room.at_the_desk(settings, tenant, command)))


def _see_to_content(work: upkeep.Work) -> NoReturn:
    """Likewise, and end with 1 where something is not well."""
    with _ending_in_a_sentence("error") as settings:
        well = asyncio.run(room.see_to_content(settings, work))
    sys.exit(0 if well else 1)


@contextmanager
def _ending_in_a_sentence(log_level: str | None = None) -> Iterator[Settings]:
    """Yields the settings; whatever goes wrong is told, and ends the process with 1."""
    set_up_logs("error")  # until it is known: structlog's own tracebacks show local variables, and with them passwords
    try:
        settings = read_settings()
        set_up_logs(log_level or settings.log_level)
        yield settings
    except StartError as error:
        print(f"m3: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception:
        log.critical("stopped by an error", exc_info=True)
        sys.exit(1)


def _allow_many_files() -> None:
    """As many as we may have: each socket is one, and systems allow 1,024 until a process asks for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # of a system whose kernel allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _until_stopped(service: AbstractAsyncContextManager[str]) -> None:
    """Run the service until SIGINT, SIGTERM or SIGHUP. A second SIGINT ends the process at once.

    A second SIGTERM does not: whoever signals a process group sends two to a process under make.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    starting = asyncio.current_task()

    def hear_signal() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        if starting is not None and not stop.is_set():
            starting.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            continue  # as under nohup
        loop.add_signal_handler(number, hear_signal)
    try:
        async with service as sentence:
            starting = None  # from here on a signal stops in good order instead of breaking off
            print(sentence, flush=True)
            await stop.wait()
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
