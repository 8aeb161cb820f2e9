"""The arrows of docs/architecture.md: which part of the code may know which."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"

ROOMS = {"intake", "queue", "routing", "tls", "delivery", "bounce", "trace"}
# Above the rooms: they may know several of them. `console` knows the relay only through `control`.
ABOVE = {"relay", "control", "cli", "console", "lab", "__main__"}
# The rooms that a room may import besides itself. Everything else it is handed as an object.
BESIDES = {"delivery": {"routing", "tls", "bounce"}, "intake": {"tls"}}
# The configuration checks routes with the one grammar of them; it needs `address` only, and knows nothing of routing.
GRAMMAR = "mailtui.routing.routes"
GRAMMAR_USERS = {"config", "settings"}

SQL = re.compile(
    r"\b(SELECT\s.+\sFROM\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|PRAGMA\s+\w"
    r"|CREATE\s+(UNIQUE\s+)?(TABLE|INDEX)\s|BEGIN\s+IMMEDIATE)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Import:
    """An import statement: the absolute name of what is imported, and whether it runs when the module is imported."""

    name: str
    line: int
    at_start: bool


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the project by its dotted name."""
    found = {}
    for path in sorted((SOURCE / "mailtui").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), str(path))
    return found


def part(name: str) -> str:
    """The room or top-level module that a dotted name belongs to; "" for the package itself."""
    _, _, rest = name.partition(".")
    return rest.partition(".")[0]


@cache
def imports(module: str) -> tuple[Import, ...]:
    """All imports of a module, those inside functions too; those for type checkers only left out."""
    package = module if _is_package(module) else module.rpartition(".")[0]
    return tuple(_walk(modules()[module], package, at_start=True))


def _is_package(module: str) -> bool:
    return (SOURCE / Path(*module.split(".")) / "__init__.py").exists()


def _walk(node: ast.AST, package: str, *, at_start: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _walk(other, package, at_start=at_start)
        elif isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_start)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - child.level + 1], *([base] if base else [])])
            for alias in child.names:
                yield Import(f"{base}.{alias.name}", child.lineno, at_start)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, package, at_start=at_start and not inside)


def own_parts() -> set[str]:
    return {part(name) for name in modules()} - {""}


def arrows(module: str) -> Iterator[tuple[str, int]]:
    """(part of the project, line) for every import of our own code."""
    for each in imports(module):
        if each.name.split(".")[0] == "mailtui":
            target = part(each.name)
            # `from mailtui import X`: X is a part, or a name of the package itself
            grammar = part(module) in GRAMMAR_USERS and each.name.startswith(GRAMMAR + ".")
            if target in own_parts() and not grammar:
                yield target, each.line


def wrong(allowed_of: dict[str, set[str]]) -> list[str]:
    """The imports of the parts named that go to a part not allowed."""
    return [
        f"{module}:{line} imports {target}"
        for module in modules()
        if part(module) in allowed_of
        for target, line in arrows(module)
        if target != part(module) and target not in allowed_of[part(module)]
    ]


def test_the_source_is_there() -> None:
    assert {"mailtui", "mailtui.model", "mailtui.queue.store"} <= modules().keys()
    assert {"model", "queue"} <= {target for target, _ in arrows("mailtui.queue.store")}


def test_rooms_import_top_level_modules_and_no_other_room() -> None:
    top_level = own_parts() - ROOMS - ABOVE
    assert wrong({room: top_level | BESIDES.get(room, set()) for room in ROOMS}) == []


def test_top_level_modules_import_no_room_and_nothing_above() -> None:
    top_level = own_parts() - ROOMS - ABOVE
    assert wrong(dict.fromkeys(top_level, top_level)) == []


def test_the_grammar_of_routes_needs_addresses_only() -> None:
    assert {target for target, _ in arrows(GRAMMAR)} == {"address"}


def test_no_room_knows_what_assembles_or_shows_it() -> None:
    assert wrong({room: own_parts() - ABOVE for room in ROOMS}) == []


def test_control_knows_neither_relay_nor_command_line_nor_console() -> None:
    assert wrong({"control": own_parts() - (ABOVE - {"control"})}) == []


def test_the_relay_knows_no_command_line_and_no_console() -> None:
    assert wrong({"relay": own_parts() - {"cli", "console", "lab", "__main__"}}) == []


def test_the_console_knows_control_and_no_room() -> None:
    assert wrong({"console": own_parts() - ROOMS - {"relay", "cli", "lab"}}) == []


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("aiosmtpd", {"intake"}),
        ("aiosmtplib", {"delivery"}),
        ("sqlite_utils", {"queue"}),
        ("textual", {"console"}),
    ],
)
def test_a_library_stays_in_its_room(library: str, homes: set[str]) -> None:
    found = [
        f"{module}:{each.line}"
        for module in modules()
        if part(module) not in homes
        for each in imports(module)
        if each.name.split(".")[0] == library
    ]
    assert found == []


def test_sql_stands_in_the_queue_only() -> None:
    found = [
        f"{module}:{node.lineno}"
        for module, tree in modules().items()
        if part(module) != "queue"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value)
    ]
    assert found == []


def test_the_pattern_for_sql_knows_sql() -> None:
    for text in ("SELECT a\nFROM b WHERE", "INSERT OR IGNORE INTO x", "DELETE FROM x WHERE", "PRAGMA journal_mode"):
        assert SQL.search(text)
    for text in ("select an address from the list", "Update the table", "selected FROM: header"):
        assert not SQL.search(text)


def test_the_command_line_imports_the_http_server_late() -> None:
    """aiohttp takes a fifth of a second to import, and a command talks to the socket without it."""
    found = [
        f"{module}:{each.line}"
        for module in modules()
        if part(module) in {"cli", "__main__"} or module in {"mailtui.control.client", "mailtui.control.offline"}
        for each in imports(module)
        if each.at_start and each.name.split(".")[0] == "aiohttp"
    ]
    assert found == []


def test_a_listing_loads_nothing_heavy(tmp_path: Path) -> None:
    """What `queue list` of a stopped relay imports, asked of a process of its own."""
    program = (
        "import sys\n"
        f"sys.argv = ['mailtui', 'queue', 'list', '--state', {str(tmp_path / 'none')!r}]\n"
        "from mailtui.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'aiohttp', 'textual', 'dns', 'aiosmtpd', 'aiosmtplib', 'uvloop', 'cryptography'}\n"
        "print('loaded:', sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1:] == ["loaded: []"]


def test_only_the_writer_copies_the_log_back() -> None:
    """Before SQLite 3.51.3 a checkpoint by one connection beside the writing of another can corrupt the database."""
    found = [path.name for path in SOURCE.rglob("*.py") if "wal_checkpoint" in path.read_text(encoding="utf-8")]
    assert found == ["writer.py"]
