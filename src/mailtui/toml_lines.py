"""The line of every key of a TOML text, which neither tomllib nor pydantic keeps.

Promises: for a text that tomllib accepts, every table, key and array element is found, also inside inline tables and
arrays of tables; it only ever looks at positions, the values are tomllib's.
"""

import re
from typing import Any

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"[ \t]*(?:\"((?:[^\"\\\n]|\\.)*)\"|'([^'\n]*)'|([A-Za-z0-9_-]+))[ \t]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2}(?!"))|\'\'\'.*?\'\'\'(?:\'{0,2}(?!\'))|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL
)
_PLAIN = re.compile(r"[^,\]}\s#]+(?:[ \t]+[0-9:.Z+-]+)?")


def lines(text: str) -> dict[Path, int]:
    """{path: line}, lines from 1. A path is keys and array indexes: ("listener", 0, "address")."""
    return _Scan(text).run()


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.found: dict[Path, int] = {}
        self.arrays: dict[Path, int] = {}  # arrays of tables: how many elements so far
        self._line, self._line_pos = 1, 0

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while True:
            self.blank()
            if self.pos >= len(self.text):
                return self.found
            if self.text[self.pos] == "[":
                table = self.header()
            else:
                self.pair(table)

    def mark(self, path: Path) -> None:
        self._line += self.text.count("\n", self._line_pos, self.pos)
        self._line_pos = self.pos
        self.found.setdefault(path, self._line)

    def blank(self) -> None:
        match = _BLANK.match(self.text, self.pos)
        self.pos = match.end() if match else self.pos

    def keys(self) -> list[str]:
        names: list[str] = []
        while True:
            match = _KEY.match(self.text, self.pos)
            if match is None:
                raise ValueError(f"no key at offset {self.pos}")
            names.append(next(group for group in match.groups() if group is not None))
            self.pos = match.end()
            if self.text[self.pos : self.pos + 1] != ".":
                return names
            self.pos += 1

    def header(self) -> Path:
        start, many = self.pos, self.text.startswith("[[", self.pos)
        self.pos += 2 if many else 1
        names = self.keys()
        end, self.pos = self.text.index("]", self.pos) + (2 if many else 1), start
        path: Path = ()
        for depth, name in enumerate(names, 1):
            path = (*path, name)
            if many and depth == len(names):
                self.arrays[path] = self.arrays.get(path, -1) + 1
            self.mark(path)
            if path in self.arrays:
                path = (*path, self.arrays[path])
                self.mark(path)
        self.pos = end
        return path

    def pair(self, table: Path) -> None:
        start = self.pos
        names = self.keys()
        after, self.pos = self.pos + 1, start  # past "="
        path = table
        for name in names:
            path = (*path, name)
            self.mark(path)
        self.pos = after
        self.value(path)

    def value(self, path: Path) -> None:
        self.blank()
        opening = self.text[self.pos]
        if opening == "[":
            self.sequence("]", path, lambda index: self.element((*path, index)))
        elif opening == "{":
            self.sequence("}", path, lambda index: self.pair(path))
        else:
            match = (_STRING if opening in "\"'" else _PLAIN).match(self.text, self.pos)
            if match is None:
                raise ValueError(f"no value at offset {self.pos}")
            self.pos = match.end()

    def element(self, path: Path) -> None:
        self.mark(path)
        self.value(path)

    def sequence(self, closing: str, path: Path, item: Any) -> None:
        self.pos += 1
        index = 0
        while True:
            self.blank()
            if self.text[self.pos] == closing:
                self.pos += 1
                return
            item(index)
            index += 1
            self.blank()
            if self.text[self.pos] == ",":
                self.pos += 1
