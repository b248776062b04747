"""Files of one run that take their places in a folder at the same time."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from speechbrain_slm.utils.atomic import TEMPORARY, fsync_file, fsync_folder


@contextlib.contextmanager
def published_together(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder whose files go to ``folder`` at the end.

    What stands there is not touched before the block has succeeded. Then the
    files of the same names are taken away, and the new ones take their places:
    a process that is killed in that moment leaves one out, and never files of
    two runs beside each other.

    Arguments
    ---------
    folder : Made where it is missing.

    Yields
    ------
    A folder inside it. Its name starts with ``.tmp-``.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with published_together(folder) as new:
    ...     (new / "text").mkdir()
    ...     _ = (new / "text" / "a.txt").write_text("whole")
    >>> [path.name for path in folder.iterdir()]
    ['text']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{TEMPORARY}{uuid.uuid4().hex[:8]}-new"
    new.mkdir()
    try:
        yield new
        names = [
            path.relative_to(new)
            for path in sorted(new.rglob("*"))
            if path.is_file()
        ]
        for name in names:
            fsync_file(new / name)
        for name in names:
            (folder / name).unlink(missing_ok=True)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(new / name, folder / name)
        for inner in {(folder / name).parent for name in names}:
            fsync_folder(inner)
    finally:
        shutil.rmtree(new, ignore_errors=True)
