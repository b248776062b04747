"""Tables in Markdown of what may come from somebody else's file."""

from collections.abc import Iterable


def markdown_row(cells: Iterable[str]) -> str:
    r"""Write a row; nothing in a cell can end it, or be a tag of HTML.

    Example
    -------
    >>> markdown_row(["a|b", "<i>", "two\nlines"])
    '| a\\|b | &lt;i> | two lines |'
    """
    escaped = (
        " ".join(cell.split()).replace("|", r"\|").replace("<", "&lt;")
        for cell in cells
    )
    return f"| {' | '.join(escaped)} |"
