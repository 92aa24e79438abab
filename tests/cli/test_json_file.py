"""The option --json: to a file or to the terminal, and refused before any work where it cannot be written."""

import json

import pytest

from flyweight.cli.json_file import check_writable, write_json
from flyweight.errors import InputError


def test_what_was_found_goes_to_the_file_or_to_the_terminal(tmp_path, capsys) -> None:
    path = tmp_path / "found.json"
    check_writable(str(path))
    write_json(str(path), {"name": "Größe", "bytes": 3})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "Größe", "bytes": 3}
    write_json("-", {"bytes": 3})
    assert json.loads(capsys.readouterr().out) == {"bytes": 3}


@pytest.mark.parametrize(("place", "why"), [("no/found.json", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, place: str, why: str) -> None:
    with pytest.raises(InputError, match=rf"cannot be written to .*: {why}; change --json"):
        check_writable(str(tmp_path / place))
    with pytest.raises(InputError, match=why):
        write_json(str(tmp_path / place), {})


def test_the_terminal_can_always_be_written_to() -> None:
    check_writable("-")
