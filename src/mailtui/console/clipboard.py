"""Text to the operator's clipboard, by the first way that works, and how it went.

A desktop's own tool (wl-copy, xclip, xsel) where a display is named; tmux's buffer, which it hands on to the clipboard
of its terminal; else OSC 52, a sequence by which the terminal is asked, wrapped for GNU screen. Promises: what is sent
is cleaned text in base64 and nothing else; a tool that hangs is given up; no answer comes from a terminal, so that
`Copied.sure` says whether it is known that it worked; `CopyError` says why no way was left.
"""

import base64
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mailtui.control.clean import clean_lines

# A display that is gone (a forwarded one, or that of an old tmux session) must not hold the console up. Seconds.
PATIENCE = 2.0

# Octets of text in one OSC 52. Terminals drop longer ones in silence: 100,000 of base64 is what most of them take.
MOST = 74_994

# GNU screen passes on what stands in a DCS, and cuts that at 256 octets: this many of base64 in each.
_PIECE = 240

# The kernel's console and dumb terminals have no clipboard, and some print what they do not understand.
_WITHOUT = frozenset({"", "dumb", "linux", "vt100", "vt220"})

# (the variable that names the display, the tools that serve it)
_TOOLS: Sequence[tuple[str, Sequence[Sequence[str]]]] = (
    ("WAYLAND_DISPLAY", (("wl-copy",),)),
    ("DISPLAY", (("xclip", "-selection", "clipboard", "-in"), ("xsel", "--clipboard", "--input"))),
)


@dataclass(frozen=True, slots=True)
class Copied:
    """`how`: by what, as it is told. Not `sure`: the terminal was asked, and does not say."""

    how: str
    sure: bool = True


class CopyError(Exception):
    """No way was left; the text says why."""


def copy(text: str, environ: Mapping[str, str], write: Callable[[str], None]) -> Copied:
    """Put `text` on the clipboard; blocks for as long as a tool takes. `write` sends a sequence to the terminal."""
    text = clean_lines(text)
    octets = text.encode("utf-8", "replace")
    for command, how in _commands(environ):
        if _run(command, octets, environ):
            return Copied(how)
    if environ.get("TERM", "") in _WITHOUT and "TMUX" not in environ:
        raise CopyError(f"this terminal ({environ.get('TERM') or 'no TERM'}) has no clipboard")
    if len(octets) > MOST:
        raise CopyError(f"{len(octets):,} octets are more than a terminal takes over its line ({MOST:,})")
    screen = "STY" in environ and "TMUX" not in environ
    write(_sequence(octets, screen=screen))
    return Copied("OSC 52 through screen" if screen else "OSC 52", sure=False)


def keep(text: str, environ: Mapping[str, str]) -> str:
    """Write `text` to a new file of this user's, which nobody else can read; its path. OSError."""
    directory = environ.get("XDG_RUNTIME_DIR") or None
    if directory is not None and not os.access(directory, os.W_OK):
        directory = None
    handle, path = tempfile.mkstemp(".txt", "mailtui-copy-", directory)  # 0600, and it did not exist
    with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
        file.write(clean_lines(text) + "\n")
    return path


def _commands(environ: Mapping[str, str]) -> list[tuple[Sequence[str], str]]:
    """The tools to try, in their order, with what is said of each."""
    wanted: list[tuple[Sequence[str], str]] = []
    for variable, tools in _TOOLS:
        if environ.get(variable):
            wanted += [(tool, tool[0]) for tool in tools]
    if environ.get("TMUX"):
        # -w hands it on to the terminal around tmux; before tmux 3.2 there was no such option.
        wanted += [(("tmux", "load-buffer", "-w", "-"), "tmux, and its terminal")]
        wanted += [(("tmux", "load-buffer", "-"), "tmux's own buffer, prefix ] pastes it")]
    there = [(shutil.which(command[0], path=environ.get("PATH")), command[1:], how) for command, how in wanted]
    return [((program, *arguments), how) for program, arguments, how in there if program is not None]


def _run(command: Sequence[str], octets: bytes, environ: Mapping[str, str]) -> bool:
    """True if it took the text. It serves the clipboard from a process that outlives it, and the console."""
    try:
        done = subprocess.run(
            command, input=octets, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE,
            start_new_session=True, check=False, env=environ,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _sequence(octets: bytes, *, screen: bool) -> str:
    encoded = base64.b64encode(octets).decode("ascii")
    if not screen:
        return f"\x1b]52;c;{encoded}\x07"
    pieces = [encoded[at : at + _PIECE] for at in range(0, len(encoded), _PIECE)] or [""]
    return "\x1bP\x1b]52;c;" + "\x1b\\\x1bP".join(pieces) + "\x07\x1b\\"
