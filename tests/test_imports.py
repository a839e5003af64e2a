"""Who may know whom: the rooms of `dlm` import in one direction, and keep no state of their own."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from types import MappingProxyType

import pytest

ROOT = Path(__file__).parents[1]
FACE = "dlm"  # the public face: what `import dlm` offers
BASE = frozenset({"errors", "rng", "registry", "sandbox"})
USER = frozenset({FACE, "errors", "search", "evals"})

# Room -> what it may import besides itself: rooms, single modules of a room, or the public face.
ALLOWED = MappingProxyType(
    {
        "errors": frozenset(),
        "rng": frozenset({"errors"}),
        "registry": frozenset({"errors"}),
        "sandbox": frozenset({"errors"}),
        "core": BASE,
        "config": BASE | {"core"},
        "text": frozenset({"errors", "core"}),
        "model": BASE | {"core"},
        "cache": frozenset({"errors", "core"}),
        "guidance": frozenset({"errors", "core", "rng"}),
        "unmasking": frozenset({"errors", "core", "rng"}),
        "decode": frozenset({"errors", "rng", "core", "model"}),
        "engine": BASE
        | {"core", "config", "text", "model", "cache", "guidance", "unmasking", "decode"},
        "search": BASE | {"core", "config", "text", "engine"},
        "evals": frozenset({FACE, "errors", "sandbox"}),
        "serve": USER,
        "cli": USER | {"serve"},
        "__main__": frozenset({"cli"}),
        "examples": USER,
        "scripts": USER | {"cli"},  # evals/*.py, what a user runs
    }
)
# What measures or makes a model may see it too.
BENCH = ("evals/speed.py", "evals/speed/*.py", "examples/*bundled*.py")

MUTABLE = frozenset(
    {"list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque"}
    | {"ChainMap", "WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "ContextVar", "local"}
)
DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
READ_ONLY = frozenset({"Mapping", "Sequence", "Set", "Collection", "tuple", "frozenset"})


def room_of(path: PurePath) -> str:
    """The room of a file, given relative to the root of the repository."""
    top, *rest = path.parts
    if top != "dlm":
        return {"evals": "scripts"}.get(top, top)
    return FACE if rest == ["__init__.py"] else rest[0].removesuffix(".py")


def imported(source: str, path: PurePath) -> Iterator[tuple[int, str]]:
    """Line and dotted name ("dlm.core.Rows") of each import of ours, at any depth of the code."""
    package = [*path.with_suffix("").parts][:-1]
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        yield from ((node.lineno, name) for name in names if f"{name}.".startswith("dlm."))


def called(node: ast.Call) -> str:
    """Last part of the name that is called, subscripts left out."""
    function = node.func.value if isinstance(node.func, ast.Subscript) else node.func
    return getattr(function, "attr", getattr(function, "id", ""))


def forbidden_imports(source: str, path: PurePath) -> list[str]:
    """What a file imports against the rules, as "path:line: room imports name"."""
    room = room_of(path)
    if room == FACE:
        return []  # it joins all rooms, lazily (tested below)
    if room not in ALLOWED:
        return [f"{path}: {room!r} is no room of the house"]
    allowed = ALLOWED[room] | {room}
    if any(path.match(pattern) for pattern in BENCH):
        allowed |= {"model", "core"}
    found = []
    for line, name in imported(source, path):
        inner = name.removeprefix("dlm").removeprefix(".")
        if inner.partition(".")[0] not in ALLOWED:
            inner = FACE  # a name of the public face
        if not any(f"{inner}.".startswith(f"{target}.") for target in allowed):
            found.append(f"{path}:{line}: {room} imports {name}")
    return found


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run at import, those inside `if`, `try`, `with` and loops too."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for field in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from statements(handler.body)


def makes_mutable(value: ast.expr) -> bool:
    """Whether an expression gives, or is a tuple of, something that can be changed in place."""
    match value:
        case ast.Call():
            return called(value) in MUTABLE
        case ast.Tuple(elts=parts) | ast.BoolOp(values=parts):
            return any(map(makes_mutable, parts))
        case ast.BinOp(left=one, right=other) | ast.IfExp(body=one, orelse=other):
            return makes_mutable(one) or makes_mutable(other)
        case ast.NamedExpr(value=inner) | ast.Starred(value=inner):
            return makes_mutable(inner)
    return isinstance(value, DISPLAYS)


def is_read_only(annotation: ast.expr | None) -> bool:
    """Whether an annotation is `Final[...]` of a type without methods that change it."""
    match annotation:
        case ast.Subscript(value=ast.Name(id="Final"), slice=inner):
            inner = inner.value if isinstance(inner, ast.Subscript) else inner
            return getattr(inner, "attr", getattr(inner, "id", "")) in READ_ONLY
    return False


def module_state(source: str, path: PurePath) -> list[str]:
    """Module-level names that hold something mutable, and whatever changes them."""
    tree = ast.parse(source)
    found = []
    for node in statements(tree.body):
        match node:
            case ast.Assign(targets=targets, value=value):
                annotation = None
            case ast.AnnAssign(target=target, value=ast.expr() as value, annotation=annotation):
                targets = [target]
            case ast.AugAssign(target=target, value=value):
                targets, annotation = [target], None
            case _:
                continue
        if [ast.unparse(target) for target in targets] == ["__all__"]:
            continue
        changes = not all(isinstance(target, ast.Name | ast.Tuple) for target in targets)
        if changes or (makes_mutable(value) and not is_read_only(annotation)):
            found.append(f"{path}:{node.lineno}: module-level state: {ast.unparse(node)[:60]}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            found.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    return found


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_rooms_import_in_one_direction():
    sources = [
        (path.read_text(), path.relative_to(ROOT)) for path in files("dlm", "examples", "evals")
    ]
    found = [line for source, path in sources for line in forbidden_imports(source, path)]
    assert not found, "\n".join(found)


def test_modules_keep_no_state():
    sources = [(path.read_text(), path.relative_to(ROOT)) for path in files("dlm")]
    found = [line for source, path in sources for line in module_state(source, path)]
    assert not found, "\n".join(found)


def test_import_dlm_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'numpy', 'fastapi', 'matplotlib', 'rich', 'typer'}"
    code = f"import sys, dlm; print(*sorted({heavy} & sys.modules.keys()))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "", "")


# The checker itself: each rule fires on a small bad source, and lets the good one pass. ----------


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("dlm/errors.py", "import dlm.core"),
        ("dlm/errors.py", "from dlm import rng"),
        ("dlm/rng.py", "from dlm.registry import Registry"),
        ("dlm/registry.py", "from .core import Rows"),
        ("dlm/sandbox.py", "def f():\n    from dlm.engine import Engine"),
        ("dlm/sandbox.py", "import dlm"),
        ("dlm/core/rows.py", "from dlm.config import GenerationConfig"),
        ("dlm/core/rows.py", "from ..model.kv_store import KVPool"),
        ("dlm/core/__init__.py", "from ..model import kv_store"),
        ("dlm/core/rows.py", "if TYPE_CHECKING:\n    from dlm.model.kv_store import KVPool"),
        ("dlm/config.py", "from dlm.unmasking import Threshold"),
        ("dlm/config.py", "class A:\n    def f(self):\n        import dlm.engine.engine as e"),
        ("dlm/config.py", "importlib.import_module('dlm.engine')"),
        ("dlm/text.py", "from dlm.config import GenerationConfig"),
        ("dlm/model/decoder.py", "from dlm.cache import Dual"),
        ("dlm/model/decoder.py", "from dlm.config import GenerationConfig"),
        ("dlm/cache/dual.py", "from dlm.model import KVPool"),
        ("dlm/cache/dual.py", "from dlm.model.decoder import Decoder"),
        ("dlm/cache/dual.py", "from dlm.model import *"),
        ("dlm/guidance/cfg.py", "from dlm.unmasking import Threshold"),
        ("dlm/guidance/cfg.py", "from dlm.registry import Registry"),
        ("dlm/unmasking/unmask/local_leap.py", "from dlm.guidance.cfg import CFG"),
        ("dlm/unmasking/unmask/local_leap.py", "from dlm.engine import Engine"),
        ("dlm/unmasking/unmask/local_leap.py", "from dlm.model.kv_store import KVPool"),
        ("dlm/decode/sync.py", "from dlm.config import GenerationConfig"),
        ("dlm/decode/sync.py", "from dlm.text import Text"),
        ("dlm/decode/sync.py", "from dlm.engine.row import RowState"),
        ("dlm/decode/sync.py", "from dlm.unmasking.stop.end_ids import Eos"),
        ("dlm/decode/sync.py", "from dlm.cache.block_freeze import Dual"),
        ("dlm/engine/engine.py", "from dlm.search import Beam"),
        ("dlm/engine/engine.py", "from dlm import GenerationConfig"),
        ("dlm/search/beam.py", "from dlm.cache import Dual"),
        ("dlm/search/beam.py", "from dlm.model import Decoder"),
        ("dlm/search/beam.py", "from dlm.serve import app"),
        ("dlm/evals/report.py", "from dlm.engine import Engine"),
        ("dlm/evals/report.py", "from dlm.model import Decoder"),
        ("dlm/evals/speedy.py", "from dlm.model import Decoder"),
        ("dlm/evals/speed.py", "from dlm.engine import Engine"),
        ("dlm/serve/app.py", "from dlm.engine import Engine"),
        ("dlm/serve/app.py", "from dlm.cli import main"),
        ("dlm/cli.py", "from dlm.core import Rows"),
        ("dlm/__main__.py", "from dlm.core import Rows"),
        ("examples/infill.py", "from dlm.engine import Engine"),
        ("examples/infill.py", "from dlm.model import Decoder"),
        ("evals/humaneval.py", "from dlm.engine import Engine"),
        ("dlm/utils.py", "x = 1"),
    ],
)
def test_a_forbidden_import_is_found(path, source):
    assert len(forbidden_imports(source, PurePath(path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("dlm/__init__.py", "from dlm.engine.engine import Engine"),
        ("dlm/errors.py", "import difflib\nimport dlmx\nfrom dlmx.core import y"),
        ("dlm/registry.py", "from .errors import InvalidRequest"),
        ("dlm/core/rows.py", "from . import event\nfrom .event import Event\nimport dlm.core.view"),
        ("dlm/core/__init__.py", "from .rows import Rows\nfrom ..errors import EngineError"),
        ("dlm/config.py", "from dlm.core import ModelInfo\nfrom dlm import errors, registry"),
        ("dlm/model/decoder.py", "from dlm.model.spec import ModelSpec\nfrom ..core import Packed"),
        ("dlm/cache/dual.py", "from dlm.core import Rows\nfrom dlm.errors import InvalidRequest"),
        ("dlm/decode/sync.py", "from dlm.core import Rows\nfrom dlm.model.kv_store import KVPool"),
        (
            "dlm/unmasking/unmask/local_leap.py",
            "from dlm.rng import draw\nfrom dlm.core import Proposal",
        ),
        ("dlm/engine/engine.py", "import dlm.model.loading\nfrom dlm.unmasking import leap"),
        ("dlm/search/beam.py", "from dlm.engine import Engine\nfrom dlm import sandbox"),
        ("dlm/evals/speed.py", "from dlm.model import Decoder\nimport dlm"),
        ("dlm/evals/speed/floor.py", "from dlm.core import Rows"),
        ("dlm/evals/report.py", "from dlm import load, Engine\nfrom dlm.sandbox import run"),
        ("dlm/cli.py", "def serve():\n    from dlm.serve import app\n    import dlm"),
        ("dlm/serve/app.py", "from dlm import AsyncEngine\nfrom dlm.errors import Unavailable"),
        ("examples/train_bundled.py", "from dlm.model.decoder import Decoder"),
        ("examples/bundled_export.py", "from dlm.core import Packed"),
        ("evals/speed.py", "from dlm.evals.speed import main"),
    ],
)
def test_an_allowed_import_passes(path, source):
    assert forbidden_imports(source, PurePath(path)) == []


@pytest.mark.parametrize(
    "source",
    [
        "CACHE = {}",
        "CACHE: dict[str, int] = {}",
        "CACHE: Final[dict[str, int]] = {}",
        "CACHE: Final = {'a': 1}",
        "SEEN = set()",
        "NAMES = ['a']",
        "NAMES = [name for name in 'ab']",
        "NAMES = ['a'] + OTHER",
        "NAMES = ((), [])",
        "TABLE = dict[str, int](a=1)",
        "TABLE = collections.defaultdict(list)",
        "_current = ContextVar('current')",
        "if True:\n    CACHE = {}",
        "try:\n    pass\nexcept ImportError:\n    CACHE = {}",
        "TABLE['a'] = 1",
        "Engine.default = 1",
        "def f():\n    global STATE\n    STATE = 1",
    ],
)
def test_module_state_is_found(source):
    assert len(module_state(source, PurePath("dlm/core.py"))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "__all__ = ['a']",
        "LIMIT = 3",
        "NAMES = ('a', 'b')",
        "NAMES = frozenset({'a'})",
        "TABLE = MappingProxyType({'a': 1})",
        "TABLE: Final[Mapping[str, int]] = {'a': 1}",
        "NAMES: Final[Sequence[str]] = ['a']",
        "RULES = Registry('unmask', {'leap': 'dlm.unmasking.unmask.local_leap:Leap'}, 'dlm.rules')",
        "PATTERN = re.compile('a')",
        "def f():\n    seen = set()\n    return seen",
        "class A:\n    slots: dict[str, int]",
        "NAMES: list[str]",
    ],
)
def test_constants_pass(source):
    assert module_state(source, PurePath("dlm/core.py")) == []


def test_every_rule_has_a_bad_example():
    """Each room of the table stands among the bad sources above."""
    marks = test_a_forbidden_import_is_found.pytestmark
    rooms = {room_of(PurePath(path)) for mark in marks for path, _ in mark.args[1]}
    assert rooms >= ALLOWED.keys()
