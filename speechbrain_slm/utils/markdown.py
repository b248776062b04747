"""Tables in Markdown of what may come from somebody else's file."""


def markdown_row(cells):
    r"""Write a row; nothing in a cell can end it, or be a tag of HTML.

    Arguments
    ---------
    cells : iterable of str
        Any texts.

    Returns
    -------
    str

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
