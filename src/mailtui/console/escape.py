"""Telling a torn escape sequence from keys.

An arrow key is `ESC [ D` on the wire. When a slow link delivers the ESC alone, Textual reports Escape and then the keys
`[` and `D`, and a verb on `D` would run. Promise: after a lone ESC, `[` or `O` and what follows of the sequence are
swallowed; nothing else is.
"""

# How long after an ESC the rest of a sequence may come, in seconds: a retransmission on a bad link takes about this.
WINDOW = 1.0

# Parameters of a sequence that are swallowed before its final byte: `[1;5C` has three, a mouse report up to ten.
_PARAMETERS = 12

# As Textual names them when ESC and the introducer came together and the rest did not.
_CSI = ("left_square_bracket", "alt+left_square_bracket")
_SS3 = ("O", "upper_o", "alt+O", "alt+shift+o", "alt+upper_o")


class Splice:
    """`swallow` is asked about each key in turn."""

    def __init__(self) -> None:
        self._escape = float("-inf")
        self._left = 0
        self._single = False

    def swallow(self, key: str, character: str | None, now: float, *, typing: bool = False) -> bool:
        """True if this key is a part of a torn sequence. `now`: monotonic seconds.

        `ESC [` whose rest is late comes from Textual as a bare `[`. No command has that key, so where nothing is typed
        (`typing`) it begins a sequence too.
        """
        fresh = now - self._escape <= WINDOW
        if key == "escape":
            self._escape, self._left = now, 0
            return False
        if self._left and fresh:
            final = character is None or "@" <= character <= "~"
            self._left = 0 if final or self._single else self._left - 1
            if not self._left:
                self._escape = float("-inf")
            return True
        self._left = 0
        together = (key.startswith("alt+") and key in (*_CSI, *_SS3)) or (key == _CSI[0] and not typing)
        if (fresh or together) and (key in _CSI or key in _SS3 or character in ("[", "O")):
            self._escape = now
            self._single = key in _SS3 or character == "O"
            self._left = 1 if self._single else _PARAMETERS
            return True
        self._escape = float("-inf")
        return False
