"""What a person sees of a document: pure functions from the relay's JSON to cells and lines.

They know no widget, no clock and no link: everything comes as an argument, so that one table of cases tests them. A
line is a list of (text, role); nothing is ever read as markup. Every sign has its ASCII twin (`glyphs`). Texts from
outside were cleaned by the link; only `content`, which is given the octets of a message, cleans for itself.
"""

from collections.abc import Mapping
from typing import Any

# A recipient, a message, an attempt: the relay's JSON.
Document = Mapping[str, Any]

# Pieces of text with the role that styles them (widgets/lines.py ROLES); "" is plain.
Line = list[tuple[str, str]]
