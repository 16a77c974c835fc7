"""Lock a file for one process, until that ends, however that comes about."""

from __future__ import annotations

import errno

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None
_TAKEN = (errno.EACCES, errno.EAGAIN)


def try_lock(descriptor: int) -> bool:
    """Take the POSIX record lock of an open file; False if another process has it.

    True also where the system or the file system has no such locks. The lock belongs to the
    process: it ends with it, and when the process closes any descriptor of the file.
    """
    if fcntl is None:
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True
