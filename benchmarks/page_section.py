"""What a benchmark made, put into a page of the docs between two marks: nothing else of the page is touched."""

from pathlib import Path


def between(text: str, name: str, body: str) -> str:
    """Return a page with what stands between its marks of this name replaced.

    Raises:
        ValueError: the page lacks a mark, or has one twice.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"The page needs each of the marks {begin} and {end} once, where the table belongs.")
    return f"{text[: text.index(begin) + len(begin)]}\n{body.rstrip()}\n{text[text.index(end) :]}"


def put(page: Path, name: str, body: str) -> None:
    """Write a table into a page, between its marks of this name.

    Raises:
        ValueError: the page lacks a mark, or has one twice.
    """
    try:
        page.write_text(between(page.read_text(), name, body))
    except ValueError as error:
        raise ValueError(f"{page.name}: {error}") from error
