"""What all command lines share as processes: how they end, whatever ends them."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
import traceback
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from model.errors import in_one_line

_DEBUG = "--debug"


class Interrupted(BaseException):
    """The process was told to stop by a signal; no Exception, so that nothing takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)  # what it is made of, so that it comes back from a worker
        self.number = number


def stoppable_at_once() -> None:
    """Until a command runs, Ctrl-C ends the process with its sentence, and without a trace."""

    def stop(number: int, _frame: FrameType | None) -> None:
        os.write(2, _sentence(number).encode())
        os._exit(128 + number)  # an exception would pass through, or get lost in, half an import

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, stop)


def not_heeded(_number: int, _frame: FrameType | None) -> None:
    """A signal's handler that does nothing. Where it takes the place of another, a signal that came
    a moment before is no error, as it is where signals are ignored.
    """


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise `Interrupted` inside, wherever the work stands.

    By default SIGTERM and SIGHUP end a process at once, with its half-written files left where they
    are. What is ignored (nohup) stays so. Elsewhere than in the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {
        name: handler
        for name in names
        if (handler := signal.getsignal(name)) not in (None, signal.SIG_IGN)
    }

    def stop(number: int, _frame: FrameType | None) -> None:
        for name in before:  # what cleans up is not to be stopped by a second one
            signal.signal(name, not_heeded)
        raise Interrupted(number)

    try:
        for name in before:
            signal.signal(name, stop)
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def add_debug(parser: ArgumentParser) -> None:
    """The option of those who want to see more of a fault of ours than a line."""
    parser.add_argument(_DEBUG, action="store_true", help="show a trace with our faults")


def command(main: Callable[[], int], *, in_a_line: bool = False) -> int:
    """Run a command line to its exit status; 128 + the signal's number if it was told to stop.

    A pipe that nobody reads from any more tells so too, and so does a full disk that we print to.
    Names that the terminal's encoding does not have, or that are none, are printed all the same.
    A fault of ours ends it with status 1 and a trace.

    in_a_line : that fault is one line, and its trace is for those who ask (`add_debug`).
    """
    _open_what_is_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error is by itself
    try:
        with interruptible():
            status = main()
            print(end="", flush=True)  # here, where somebody sees it fail
            return status
    except BrokenPipeError:  # whoever read what we print has read enough (head, a closed pager)
        _print_no_more()
        return 128 + signal.SIGPIPE
    except Interrupted as stopped:
        sys.stderr.write(_sentence(stopped.number))
        return 128 + stopped.number
    except Exception as error:  # the boundary: whatever it is
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _print_no_more()
            sys.stderr.write(f"error: output cannot be written: {error.strerror}.\n")
            return 2
        if in_a_line and _DEBUG not in sys.argv:
            words = in_one_line(f"{type(error).__name__}: {error}")
            sys.stderr.write(f"internal error: {words} ({_DEBUG} shows more)\n")
        else:
            traceback.print_exc()
        return 1


def _open_what_is_closed() -> None:
    """Nobody sees a stream that was closed before we began (2>&-); no file of ours gets its number,
    for what some library prints would go there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _print_no_more() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(number: int) -> str:
    return f"stopped by {signal.Signals(number).name}; nothing is left half done\n"
