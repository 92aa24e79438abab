"""The facts about the machine are there, and none of them says whose machine it is."""

import json
import os
import socket

from numpy import __version__ as numpy_version

from flyweight.cost.hardware import describe_hardware, package_versions


def test_hardware_names_cpu_cores_memory_and_versions() -> None:
    facts = describe_hardware()
    assert facts["cpu"]
    assert 1 <= facts["cores_allowed"] <= facts["cores"]
    assert facts["memory_bytes"] > 2**28
    assert facts["packages"]["numpy"] == numpy_version


def test_hardware_is_json_without_paths_or_host_name() -> None:
    text = json.dumps(describe_hardware())
    assert socket.gethostname() not in text
    assert os.sep + "home" not in text
    assert os.getcwd() not in text


def test_missing_package_is_left_out() -> None:
    assert package_versions(("numpy", "no-such-package")) == {"numpy": numpy_version}
