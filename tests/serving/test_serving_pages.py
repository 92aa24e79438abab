"""What the pages for a platform team name is there: options, metrics, routes, and a manifest that can be read."""

import inspect
import re
from pathlib import Path

import yaml

from flyweight.cli.serve import serve
from flyweight.serving import exposition, routes

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "serving_production.md").read_text()
OPTIONS = {f"--{name.replace('_', '-')}" for name in inspect.signature(serve).parameters}
OTHERS = {"--no-cache-dir", "--uid"}  # of pip and useradd


def test_options_of_the_page_are_those_of_the_command() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert len(named) > 15
    assert named - OPTIONS - OTHERS == set()


def test_metrics_of_the_alerts_are_exposed() -> None:
    source = inspect.getsource(exposition)
    named = set(re.findall(r"flyweight_[a-z_]+", PAGE))
    assert len(named) > 5
    assert {name for name in named if name.removesuffix("_total") not in source} == set()


def test_probes_of_the_manifest_ask_what_answers() -> None:
    manifest = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    served = inspect.getsource(routes)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert f'"{asked["path"]}"' in served
        assert asked["port"] == container["ports"][0]["containerPort"]
