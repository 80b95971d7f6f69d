"""The images that the compose files name: the real ones, or stand-ins where no registry can be reached."""

import configparser
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.compose.engine import CommandError, Engine, run
from tests.support.packages import Say

ROOT = Path(__file__).parents[2]
STANDINS = ROOT / "tests/compose/standins"
#: What Debian is fetched from where the machine's own packages come from nowhere better.
MIRROR = "http://deb.debian.org/debian"
RELEASE = "trixie"
#: What all images are named by that are made here and nowhere else.
OURS = "m3-test/"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
#: Seconds that one image may take to be pulled, and to be built.
PULL = 300.0
BUILD = 600.0
#: How a registry says that it has no such image, as opposed to not being reached.
NO_SUCH_IMAGE = re.compile(r"manifest unknown|not found|repository does not exist", re.IGNORECASE)


class NoImageError(Exception):
    """There is no such image, and nothing that could stand in for it."""


def images(engine: Engine, names: Iterable[str], say: Say) -> None:
    """Have each of these images under its name: it is here already, or is pulled, or a stand-in is built.

    A stand-in for ``registry/owner/kind:version`` is made of Debian's packages by ``standins/kind``, with whatever
    version Debian has. One failure to reach a registry is enough not to try again.
    """
    for name in names:
        if name.startswith(OURS):
            _build(engine, name.removeprefix(OURS), say)
        elif name not in engine.stood_in and not _is_real(engine, name) and not _pull(engine, name, say):
            _stand_in(engine, name, say)


def _is_real(engine: Engine, name: str) -> bool:
    try:
        label = engine.docker("image", "inspect", "--format", '{{index .Config.Labels "m3-test.stand-in"}}', name)
    except CommandError:
        return False
    return not label


def _pull(engine: Engine, name: str, say: Say) -> bool:
    if engine.no_registry:
        return False
    try:
        engine.docker("pull", "--quiet", name, within=PULL)
    except CommandError as error:
        if NO_SUCH_IMAGE.search(str(error)):
            raise NoImageError(str(error)) from error
        engine.no_registry = str(error)
        say(f"no registry, so stand-ins are built: {error}")
        return False
    say(f"pulled {name}")
    return True


def _stand_in(engine: Engine, name: str, say: Say) -> None:
    kind = name.rpartition("/")[2].partition(":")[0]
    if "@" in name or not (STANDINS / kind).is_dir():
        raise NoImageError(f"nothing stands in for {name} ({engine.no_registry})")
    _build(engine, kind, say)
    engine.docker("tag", OURS + kind, name)
    engine.stood_in.add(name)
    say(f"{name} is a stand-in, of the version that Debian {RELEASE} has")


def _build(engine: Engine, kind: str, say: Say) -> None:
    if kind in engine.built:
        return
    folder = STANDINS / kind
    for below in re.findall(rf"^FROM {OURS}(\S+)", (folder / "Dockerfile").read_text("utf-8"), re.MULTILINE):
        if below == "debian":
            _debian(engine, say)
        else:
            _build(engine, below, say)
    with tempfile.TemporaryDirectory(prefix="m3-image-") as temporary:
        context = Path(temporary, kind)
        shutil.copytree(folder, context)
        if kind == "base":
            _trust_and_ask_as_here(context / "etc")
        engine.docker("build", "--quiet", "--tag", OURS + kind, str(context), within=BUILD)
    engine.built.add(kind)


def _trust_and_ask_as_here(etc: Path) -> None:
    """Give the images this machine's certificates, and its package indexes where those are no local folders."""
    (etc / "ssl/certs").mkdir(parents=True)
    if CERTIFICATES.exists():
        shutil.copy(CERTIFICATES, etc / "ssl/certs")
    settings = configparser.RawConfigParser()
    settings.read(["/etc/pip.conf", Path.home() / ".config/pip/pip.conf"], "utf-8")
    index = os.environ.get("PIP_INDEX_URL", settings.get("global", "index-url", fallback=""))
    if index.startswith(("http://", "https://")):
        (etc / "pip.conf").write_text(f"[global]\nindex-url = {index}\n", "utf-8")
    registry = run(str(ROOT / "web/npm"), "config", "get", "registry", within=60)
    (etc / "npmrc").write_text(f"registry = {registry}\n", "utf-8")


def _debian(engine: Engine, say: Say) -> None:
    name = f"{OURS}debian"
    if engine.docker("images", "--quiet", name):
        return
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise NoImageError(f"stand-ins are built with debootstrap, as root ({engine.no_registry})")
    mirror = _mirror()
    say(f"making an image of Debian {RELEASE} from {mirror}")
    with tempfile.TemporaryDirectory(prefix="m3-debian-", dir="/var/tmp") as temporary:
        root, archive = Path(temporary, "root"), Path(temporary, "root.tar")
        # What it mounts and starts must not outlive it, least of all where its folder is deleted.
        alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
        bootstrap = ("debootstrap", "--variant=minbase", "--include=ca-certificates", RELEASE, str(root), mirror)
        run(*alone, *bootstrap, within=BUILD)
        leave_out = ("--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*", "--exclude=./dev/*")
        run("tar", "--directory", str(root), "--create", "--file", str(archive), *leave_out, ".", within=120)
        engine.docker("import", str(archive), name, within=120)


def _mirror() -> str:
    """Where this machine gets Debian's packages from."""
    sources = Path("/etc/apt")
    for file in (*sources.glob("sources.list"), *sorted(sources.glob("sources.list.d/*"))):
        for line in file.read_text("utf-8").splitlines():
            if found := re.match(r"(?:deb|URIs:)\s.*?(https?://\S+/debian)/?(?:\s|$)", line):
                return found[1]
    return MIRROR
