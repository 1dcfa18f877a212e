"""`geluwatch demo`: puts stage, story and display together, and cleans up whatever happens."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib import util
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from geluwatch.errors import ConfigError, MissingPartError

if TYPE_CHECKING:
    from rich.console import Console

    from geluwatch.cli.demo.display import Display
    from geluwatch.cli.demo.story import Story

_LOG_COLUMNS = 120  # where the output is no terminal and so has no width of its own


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration; return 0 if every promise was kept, else 1.

    Raises:
        MissingPartError: A package of the demonstration is not installed.
        ConfigError: The data folder cannot be used.
    """
    if util.find_spec("rich") is None:
        raise MissingPartError("The demonstration needs the package rich, which is not installed; run: pip install rich")
    import torch
    from rich.console import Console

    from geluwatch.cli.demo import summary
    from geluwatch.cli.demo.page import SIZE, PageStory
    from geluwatch.cli.demo.stage import Stage
    from geluwatch.cli.demo.story import Story

    # Threads of a pool wait for each other: where servers and others use the cores too, two took five times as long as one.
    torch.set_num_threads(1)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _LOG_COLUMNS)
    with ExitStack() as stack:
        stack.enter_context(_signals_interrupt())
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="geluwatch-demo-")))
        data = _usable(arguments.data) if arguments.data else temporary
        display, screen = _display(console)
        with screen:
            stage = stack.enter_context(Stage(display, temporary if arguments.servers else None))
            store = f"sqlite:///{data / 'geluwatch.db'}"
            story = PageStory(stage, store, SIZE) if arguments.page else Story(stage, store)
            outcome = story.run()
        if isinstance(story, PageStory) and story.notification is not None:
            summary.show_notification(story.notification, console)
        summary.show(outcome, console)
        if arguments.stay:
            summary.show_links(outcome, console)
            _stay(story)
        else:
            console.print(f"\nTo look around while it runs: geluwatch demo{' --page' if arguments.page else ''} --stay")
    return 0 if outcome.good else 1


def _stay(story: Story) -> None:
    try:
        story.keep_serving()
    except KeyboardInterrupt:
        return


def _display(console: Console) -> tuple[Display, AbstractContextManager[object]]:
    """Return the display that fits, and what has to be entered around its use."""
    from geluwatch.cli.demo.plain import PlainDisplay

    if not console.is_terminal or console.is_dumb_terminal or not console.encoding.startswith("utf"):
        return PlainDisplay(sys.stdout), nullcontext()
    from geluwatch.cli.demo.screen import ScreenDisplay

    screen = ScreenDisplay(console)
    return screen, screen


def _usable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--data {folder} cannot be used as a folder: {error.strerror}; name one that can be written.") from error
    return folder.resolve()


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Treat the signals that end a program like Ctrl-C, so that they too leave no server and no folder behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
