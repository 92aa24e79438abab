"""A torch and an FBGEMM that do not go together: both named, and the pair that works."""

from importlib.metadata import PackageNotFoundError

import pytest

import flyweight as fw
from flyweight.parallel.sharded import torchrec_versions
from flyweight.parallel.sharded.torchrec_versions import check_versions, load_torchrec

FITS = {"torch": "2.13.0+cpu", "torchrec": "1.8.0", "fbgemm-gpu-cpu": "1.8.0"}
INSTALL = r"`pip install fbgemm-gpu-cpu==1\.8\.0`, then `pip install --no-deps torchrec==1\.8\.0`"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The packages that are said to be installed; change them."""
    found = dict(FITS)

    def version(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(torchrec_versions, "version", version)
    return found


def test_a_pair_that_fits_and_one_that_nobody_knows_pass(installed: dict[str, str]) -> None:
    check_versions()
    installed |= {"torch": "9.1.0", "fbgemm-gpu-cpu": "7.0.0", "torchrec": "7.0.0"}
    check_versions()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fbgemm-gpu-cpu": "1.7.0"}, r"fbgemm-gpu-cpu 1\.7\.0 and torchrec 1\.8\.0 do not go with torch 2\.13\.0"),
        ({"torchrec": "1.6.0"}, r"fbgemm-gpu-cpu 1\.8\.0 and torchrec 1\.6\.0 do not go with torch 2\.13\.0"),
        ({"fbgemm-gpu": "1.8.0"}, r"fbgemm-gpu-cpu 1\.8\.0 and fbgemm-gpu 1\.8\.0 are both installed"),
        ({"fbgemm-gpu-cpu": None}, r"need fbgemm-gpu-cpu, not installed"),
        ({"fbgemm-gpu-cpu": None, "torchrec": None}, r"need torchrec and fbgemm-gpu-cpu, not installed"),
    ],
)
def test_a_pair_that_does_not_fit_is_named_with_the_one_that_does(
    change: dict[str, str | None], said: str, installed: dict[str, str]
) -> None:
    for name, release in change.items():
        installed.pop(name, None)
        if release is not None:
            installed[name] = release
    with pytest.raises(fw.EngineError, match=rf"(?s){said}.*torch 2\.13 goes with .*{INSTALL}"):
        check_versions()


def test_another_torch_is_told_its_own_pair(installed: dict[str, str]) -> None:
    installed["torch"] = "2.11.2"
    with pytest.raises(fw.EngineError, match=r"torch 2\.11 goes with fbgemm-gpu-cpu 1\.6\.0 and torchrec 1\.6\.0"):
        check_versions()


def test_what_the_import_says_is_told_with_the_pair(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*words: object, **more: object) -> None:
        raise OSError("undefined symbol: _ZN3c104impl3cow23materialize_cow_storageERNS_11StorageImplE")

    monkeypatch.setattr("builtins.__import__", refuses)
    with pytest.raises(fw.EngineError, match=rf"cannot be imported \(undefined symbol: _ZN3c10.*{INSTALL}"):
        load_torchrec()
