"""Data files of an installed package, found by its list of files: the package itself is never imported."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from flyweight.errors import InputError


def packaged_file(package: str, file: str, extra: str) -> Path:
    """Return the path of a file that a package installed by pip holds.

    Args:
        package: its name on the package index.
        file: the path below site-packages, with forward slashes.
        extra: the extra of flyweight that installs the package.

    Raises:
        InputError: the package is not installed, or lacks the file; says what to install.
    """
    try:
        found = distribution(package)
    except PackageNotFoundError:
        raise InputError(
            f"The data package {package} is not installed; run: pip install 'flyweight[{extra}]'"
        ) from None
    path = Path(str(found.locate_file(file)))
    if not path.is_file():
        raise InputError(
            f"{package} {found.version} holds no file {file}; run: pip install --force-reinstall 'flyweight[{extra}]'"
        )
    return path
