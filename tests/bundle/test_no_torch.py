"""Serving needs no PyTorch: a bundle is loaded and scored where torch cannot be imported."""

import importlib.metadata
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import tiny_models

from flyweight.bundle.write import write_bundle

SOURCE = Path(__file__).parents[2] / "src"
#: What the core install names in pyproject.toml, and nothing else.
CORE = ("numpy", "onnx", "onnxruntime", "pydantic", "rich", "typer")
HEAVY = ("torch", "scipy", "matplotlib", "onnxscript", "onnx_ir", "polars", "jinja2", "openvino")
SCRIPT = """
import sys
for name in {heavy}:
    try:
        __import__(name)
    except ModuleNotFoundError:
        pass
    else:
        raise SystemExit(name + " can be imported, so this proves nothing")
import numpy as np
import flyweight as fw
with fw.load({path!r}) as ranker:
    print(*ranker.score(request={{"user_id": 7}}, candidates={{"item_id": [0, 299], "price": [0.5, 2.0]}}))
    assert fw.verify({path!r}).ok
with fw.load({hoisted!r}) as ranker:
    assert ranker.bundle.graph.hoisted
    given = {{"item_id": [0, 299, 0, 299], "price": [0.5, 2.0, 0.5, 2.0]}}
    print(*ranker.score_many({{"user_id": [7, 3]}}, given, [0, 2, 4]))
    print(*ranker.score({{"user_id": 7}}, given)[:2])
    assert fw.verify({hoisted!r}).ok
assert not set({heavy}) & set(sys.modules)
try:
    fw.Task
except ImportError as error:
    assert "pip install 'flyweight[compress]'" in str(error), error
else:
    raise SystemExit("Task came without torch")
"""


def requirements(names: tuple[str, ...]) -> set[str]:
    """Distributions that the named ones need, themselves included, but for extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            marker = line.partition(";")[2]
            if (
                "extra" in marker
                or "platform_system" in marker
                or "sys_platform" in marker
                or "python_version" in marker
            ):
                continue
            waiting.append(re.match(r"[\w.-]+", line.strip())[0])  # type: ignore[index]
    return found


def linked_packages(folder: Path, distributions: set[str]) -> None:
    """Make a folder of links to the packages of exactly these distributions."""
    for name in distributions:
        top = {
            path.parts[0] for path in importlib.metadata.files(name) or [] if path.parts[0] not in ("..", "__pycache__")
        }
        for entry in top:
            origin = Path(str(importlib.metadata.distribution(name).locate_file(entry)))
            if not (folder / entry).exists():
                (folder / entry).symlink_to(origin)


def expected_line() -> list[float]:
    import numpy as np

    """Scores of the bundle; of two requests of the hoisted one in one call; and of one of them."""
    users, items, prices = [7, 7, 7, 7, 3, 3, 7, 7], [0, 299] * 4, np.array([0.5, 2.0] * 4, dtype=np.float32)
    return list(tiny_models.expected(np.array(users), np.array(items), prices))


def run(python: str, flags: list[str], script: str, tmp_path: Path) -> list[float]:
    file = tmp_path / "serve.py"
    file.write_text(script)
    done = subprocess.run([python, *flags, str(file)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    return [float(word) for word in done.stdout.split()]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "ranker.fly", tiny_models.contents(tmp_path / "export"))


@pytest.fixture
def hoisted(tmp_path: Path) -> Path:
    contents = tiny_models.contents(tmp_path / "hoisted", proto=tiny_models.hoisted_ranker(), outside=False)
    return write_bundle(tmp_path / "hoisted.fly", contents)


def test_bundle_scores_where_only_the_core_install_is(bundle: Path, hoisted: Path, tmp_path: Path) -> None:
    """A fresh interpreter that sees links to the core distributions and what they require, and no other package."""
    packages = tmp_path / "packages"
    packages.mkdir()
    linked_packages(packages, requirements(CORE))
    (packages / "flyweight").symlink_to(SOURCE / "flyweight")
    path = f"import sys; sys.path.append({str(packages)!r})\n"
    script = path + SCRIPT.format(heavy=HEAVY, path=str(bundle), hoisted=str(hoisted))
    assert run(sys.executable, ["-I", "-S"], script, tmp_path) == pytest.approx(expected_line(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bundle_scores_in_an_environment_made_by_pip(bundle: Path, hoisted: Path, tmp_path: Path) -> None:
    """`pip install .` without extras into a new environment."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = str(home / "bin" / "python")
    pins = SOURCE.parent / "constraints.txt"
    flags = ["-c", str(pins)] if pins.exists() else []
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *flags, str(SOURCE.parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert run(
        python, ["-I"], SCRIPT.format(heavy=HEAVY, path=str(bundle), hoisted=str(hoisted)), tmp_path
    ) == pytest.approx(expected_line(), rel=1e-5)
