"""What is being done at the moment, on standard error."""

from __future__ import annotations

from rich.console import Console


class Progress:
    """A line that changes on a terminal, lines below each other elsewhere. Used as a context."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status("")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.rest()

    def say(self, text: str) -> None:
        """Show what is being done until there is something else to say, or `rest`."""
        if not self._console.is_terminal:
            self._console.print(text, markup=False, soft_wrap=True)
            return
        self._status.update(text)
        self._status.start()

    def rest(self) -> None:
        """Leave the terminal to others."""
        self._status.stop()
