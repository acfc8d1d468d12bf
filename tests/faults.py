"""Ends a piece of work, with no clean-up at all, at its Nth change of the disk: what `kill -9` or a power cut does."""

import os
import signal
from collections.abc import Callable
from typing import Any

CHANGES = ("open", "write", "mkdir", "chmod", "rename", "replace", "symlink", "unlink", "rmdir", "sync", "fsync")


def run_and_die_at(step: int | None, work: Callable[[], object]) -> bool:
    """Run the work in a child process that dies just before its change number `step`, or never.

    Returns whether the work ended by itself. A write is cut in half before the child dies.
    """
    child = os.fork()
    if child == 0:
        try:
            if step is not None:
                _arm(step)
            work()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0
    return True


def _arm(step: int) -> None:
    left = step

    def dying(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if name == "open" and not arguments[1] & os.O_CREAT:
                return real(*arguments, **options)
            left -= 1
            if left == 0:
                if name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in CHANGES:
        setattr(os, name, dying(name, getattr(os, name)))
