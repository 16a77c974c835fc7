"""What an install brings: every package, and nothing heavy before it is needed."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "onnxruntime", "onnx")


def on_disk(name, folder):
    return [
        ".".join((name, *init.parent.relative_to(folder).parts))
        for init in folder.rglob("__init__.py")
    ]


def test_every_package_on_disk_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    find = project["tool"]["setuptools"]["packages"]["find"]
    installed = [
        package
        for where in find["where"]
        for package in find_packages(str(ROOT / where), include=find["include"])
    ]
    packages = on_disk("risen_plugin", ROOT / "risen_plugin")
    packages += on_disk("risen_export", ROOT / "export" / "risen_export")
    assert sorted(installed) == sorted(packages)


def test_the_version_is_said_in_one_place(setup):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "risen_plugin.__version__"
    }
    assert "version" not in setup["metadata"]
    assert "version" not in project["project"]


def declared(setup):
    """The modules of the distributions that an install brings, with or without an extra."""
    extras = {k: v for k, v in setup["options.extras_require"].items() if k not in ("test", "docs")}
    lists = [setup["options"]["install_requires"], *extras.values()]
    names = [re.split(r"[<>=~ ;\[]", line)[0] for lines in lists for line in lines.split()]
    modules = {"PyYAML": "yaml"}
    return {modules.get(name, name.replace("-", "_")) for name in names}


def imported(folder):
    """The modules that the code under ``folder`` imports, each with a file that does."""
    found = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            found |= {name.split(".")[0]: path for name in names}
    return found


@pytest.mark.parametrize("folder", ["risen_plugin", "export/risen_export"])
def test_every_library_that_is_imported_is_declared(folder, setup):
    # pytest: for those who test a plugin; optimum: run by the interpreter of its own environment
    ours = {"risen_plugin", "risen_export", "pytest", "optimum"}
    known = sys.stdlib_module_names | ours | declared(setup)
    undeclared = {name: str(path) for name, path in imported(ROOT / folder).items()}
    assert {k: v for k, v in undeclared.items() if k not in known} == {}


def test_the_packages_say_that_they_are_typed(setup):
    for package in ("risen_plugin", "export/risen_export"):
        assert (ROOT / package / "py.typed").exists()
    for package in ("risen_plugin", "risen_export"):
        assert "py.typed" in setup["options.package_data"][package]


@pytest.mark.parametrize(
    "action",
    [
        "import risen_plugin",
        "import risen_plugin.config, risen_plugin.testing",
        *(
            f"from risen_plugin.cli import main; main({arguments!r})"
            for arguments in (["--help"], ["--version"], ["plugins"], ["rewards", "length"])
        ),
    ],
)
def test_nothing_heavy_is_loaded(fresh_python, record_property, action):
    code = f"""
import sys
try:
    {action}
except SystemExit as stop:
    assert not stop.code, stop.code
print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules])
"""
    began = time.perf_counter()
    done = fresh_python(code)
    # Meant to stay under 0.5 s; noted, not asserted, since a busy machine says nothing.
    record_property("seconds", time.perf_counter() - began)
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_the_exporter_joins_through_its_entry_point(fresh_python):
    done = fresh_python(
        "from risen_plugin.cli import command_line; print(*command_line().commands)"
    )
    assert {"plugins", "rewards", "generators", "schedulers", "exporters", "export"} <= set(
        done.stdout.split()
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel of this tree, built where an earlier build has left a file."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, tree)
    for name in ("risen_plugin", "export"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    stale = tree / "build" / "lib" / "risen_plugin" / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True)
    [path] = (tree / "dist").glob("*.whl")
    return zipfile.ZipFile(path).namelist()


def test_what_an_earlier_build_left_is_not_packed(wheel):
    assert "risen_plugin/cli.py" in wheel
    assert "risen_plugin/stale.py" not in wheel


def test_a_wheel_has_every_file_that_is_no_code(wheel):
    folders = {"risen_plugin": ROOT, "risen_export": ROOT / "export"}
    files = {
        str(path.relative_to(beside))
        for package, beside in folders.items()
        for path in (beside / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert files - set(wheel) == set()
