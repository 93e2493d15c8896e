"""Whether files can be read or written now: a look at permissions, nothing is opened.

Owns: the two looks. Does not own: which files are meant (files.source, files.sink).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from flowcore.health import Health


def readable(paths: Sequence[str], *, waits: bool) -> Health:
    """Of files to read, by their absolute paths.

    Args:
        paths: that match; at least one but where the source waits.
        waits: the source waits for files that are not there yet.
    """
    missing = [path for path in paths if not os.path.exists(path)]  # noqa: PTH110 - paths are text throughout
    closed = [path for path in paths if path not in missing and not os.access(path, os.R_OK)]
    if closed:
        return Health("failing", f"{closed[0]!r} may not be read; check its permissions")
    if missing or not paths:
        what = repr(missing[0]) if missing else "no file"
        return Health("degraded" if waits else "failing", f"{what} is not there yet")
    return Health("ok", f"{len(paths)} file{'' if len(paths) == 1 else 's'} can be read")


def writable(path: str, *, create_folder: bool) -> Health:
    """Of a file to write, by its absolute path."""
    folder = os.path.dirname(path)  # noqa: PTH120 - as above
    if os.path.isdir(path):  # noqa: PTH112 - as above
        return Health("failing", f"{path!r} is a folder; name a file")
    if os.path.exists(path) and not os.access(path, os.W_OK):  # noqa: PTH110 - as above
        return Health("failing", f"{path!r} may not be written; check its permissions")
    if not os.path.isdir(folder) and not create_folder:  # noqa: PTH112 - as above
        return Health("failing", f"the folder {folder!r} is not there; make it, or set create_folder: true")
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):  # noqa: PTH112, PTH120 - as above
        folder = os.path.dirname(folder)  # noqa: PTH120 - as above
    if not os.access(folder, os.W_OK | os.X_OK):
        return Health("failing", f"{folder!r} may not be written to; check its permissions")
    return Health("ok", f"{path!r} can be written")
