"""ctrl+p: the commands of the `:` line, found by a part of their name or of what they do."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from textual.command import DiscoveryHit, Hit, Hits, Provider

from mailtui.console import commands

if TYPE_CHECKING:
    from mailtui.console.app import Console


class VerbProvider(Provider):
    """Choosing one opens `:` with its name."""

    async def discover(self) -> Hits:
        for name, help in commands.described():
            yield DiscoveryHit(name, self._typed(name), help=help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for name, help in commands.described():
            score = max(matcher.match(name), matcher.match(help) * 0.5)
            if score > 0:
                yield Hit(score, matcher.highlight(name), self._typed(name), help=help)

    def _typed(self, name: str) -> Callable[[], None]:
        console: Console = self.app  # type: ignore[assignment]
        return partial(console.command_line, name + " ")
