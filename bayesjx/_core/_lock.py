"""A lock on a file: one process at a time holds it, and the system lets it go with the process."""

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class FileLock:
    """An exclusive advisory lock on `path`, kept in the file `path.lock` beside it.

    The lock is that of the open file, so two fits of one process exclude each other too, and what
    a killed process leaves behind locks nobody out. On systems without POSIX locks, an open
    `path.lock` is the lock.

    Args:
        path: of the file to be locked; it need not exist, its folder must.
    Raises:
        BlockingIOError: somebody else holds it.
    """

    def __init__(self, path: Path):
        self._path = path.with_name(path.name + ".lock")
        self._descriptor = self._open()

    def release(self) -> None:
        """Let it go and remove the file; further calls do nothing."""
        if self._descriptor is None:
            return
        if fcntl is None:  # an open file cannot be removed there
            os.close(self._descriptor)
            self._path.unlink(missing_ok=True)
        else:  # removed while it is held, so that nobody's new lock file is
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
        self._descriptor = None

    def _open(self) -> int:
        if fcntl is None:
            try:  # what was left open cannot be removed, what was left behind can
                self._path.unlink(missing_ok=True)
            except PermissionError:
                raise BlockingIOError(f"{self._path} is in use") from None
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder before may have removed the file between the two calls.
                if _same_file(descriptor, self._path):
                    return descriptor
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
