"""The code that a result depends on: all that a step imports, directly or not, found by reading files.

A digest of it tells whether a result can be compared with another and whether it has to be made again. Comments, line
breaks and docstrings do not count, except the docstrings of figures, whose first line is their caption.
"""

import ast
import functools
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("kpo", "reproduction", "paper_figures")
COMMANDS = "reproduction/cli.py"


def step_hash(step: str) -> str:
    """The digest of the code of `python -m reproduction <step>`."""
    return code_hash(*step_modules(step))


def notebook_hash(path: Path) -> str:
    """The digest of a notebook's text and code, without its outputs, and of what it imports and draws.

    The cell in which papermill has written the parameters of an execution is an output too.
    """
    cells, tree = _notebook(path)
    drawn = {name for figure in notebook_names(path) if _file(name := f"paper_figures.{figure}")}
    modules = {*_imports(tree, ""), *drawn, "reproduction.execute_notebook"}
    return hashlib.sha256(f"{json.dumps(cells)}\0{code_hash(*sorted(modules))}".encode()).hexdigest()


def notebook_names(path: Path) -> set[str]:
    """All texts in a notebook's code that can be names, those of the figures that it shows among them."""
    return {text for text in _strings(_notebook(path)[1]) if text.isidentifier()}


def _notebook(path: Path) -> tuple[list[tuple[str, str]], ast.Module]:
    """The kind and text of each cell, and all code."""
    cells = [
        (cell["cell_type"], "".join(cell["source"]))
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if "injected-parameters" not in cell.get("metadata", {}).get("tags", [])
    ]
    lines = "\n".join(text for kind, text in cells if kind == "code").splitlines()
    return cells, ast.parse("\n".join(line for line in lines if not line.startswith(("%", "!"))))


def code_hash(*modules: str) -> str:
    """The digest of `code_files(*modules)`."""
    digest = hashlib.sha256()
    for path in code_files(*modules):
        content = _read(path)[0] if path.suffix == ".py" else path.read_bytes()
        digest.update(path.relative_to(REPOSITORY).as_posix().encode() + b"\0" + content + b"\0")
    return digest.hexdigest()


def code_files(*modules: str) -> list[Path]:
    """The files of this repository that importing `modules` may run, and the data files of their packages."""
    found: dict[str, Path] = {}
    open_names = list(modules)
    seen: set[str] = set()
    while open_names:
        name = open_names.pop()
        if name in seen:
            continue
        seen.add(name)
        path, above = _file(name), name.rpartition(".")[0]
        if path is not None:
            found[name] = path
            open_names += [above, *_read(path)[1]]
        elif (package := _file(above)) is not None and b"'__getattr__'" in _read(package)[0]:
            # A name that the package imports when it is asked for, from one of its modules.
            open_names += [f"{above}.{module.stem}" for module in package.parent.glob("*.py")]
    data = [file for path in found.values() if path.name == "__init__.py" for file in _data_files(path.parent)]
    return sorted({*found.values(), *data})


def step_modules(step: str) -> list[str]:
    """What the function of a step uses in the command line, itself or through functions there that it calls.

    Raises ValueError for an unknown step, whose results would seem to depend on no code.
    """
    tree = ast.parse((REPOSITORY / COMMANDS).read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    imported: dict[str, set[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {alias.asname or alias.name: _imports(node, "reproduction") for alias in node.names}
    called: set[str] = set()
    modules: set[str] = set()
    open_names = [f"_{step}"]
    while open_names:
        name = open_names.pop()
        if name in called or name not in functions:
            continue
        called.add(name)
        used = [node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)]
        modules |= _imports(functions[name], "reproduction").union(*(imported.get(other, set()) for other in used))
        open_names += used
    if not modules:
        raise ValueError(f"{COMMANDS} has no function _{step} that imports anything")
    return sorted(modules)


@functools.cache
def _file(name: str) -> Path | None:
    """The file of a module of this repository; None for any other name."""
    if name.partition(".")[0] not in PACKAGES:
        return None
    path = REPOSITORY.joinpath(*name.split("."))
    candidates = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _data_files(package: Path) -> Iterable[Path]:
    """Files in a package, or in folders of it that are no packages, that are no Python."""
    for path in package.iterdir():
        if path.is_dir() and path.name != "__pycache__" and not (path / "__init__.py").is_file():
            yield from _data_files(path)
        elif path.is_file() and path.suffix not in (".py", ".pyc"):
            yield path


@functools.cache
def _read(path: Path) -> tuple[bytes, frozenset[str]]:
    """What counts of a module's text, and the modules that it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    package = name.removesuffix(".__init__") if path.name == "__init__.py" else name.rpartition(".")[0]
    imports = frozenset(_imports(tree, package))
    if path.relative_to(REPOSITORY).parts[0] != "paper_figures":
        tree = _WithoutDocstrings().visit(tree)
    return ast.dump(tree).encode(), imports


class _WithoutDocstrings(ast.NodeTransformer):
    """Docstrings of modules, classes, functions and constants: strings that are statements."""

    def visit_Expr(self, node):
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if is_text else node


def _imports(tree: ast.AST, package: str) -> set[str]:
    """Names that may be modules: of every import at any place, also in code that is given as text."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    for text in _strings(tree):
        if re.search(rf"import ({'|'.join(PACKAGES)})\b|from ({'|'.join(PACKAGES)})\b.* import ", text):
            try:
                found |= _imports(ast.parse(text), package)
            except SyntaxError:
                continue
    return found


def _strings(tree: ast.AST) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
