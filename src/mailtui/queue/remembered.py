"""What operators have set, read beside the relay or after it: pauses, suspensions, limits, routes."""

import json

from mailtui.model import Control
from mailtui.queue.read import Reader
from mailtui.queue.tables import controls


def remembered(reader: Reader, kind: str) -> list[Control]:
    """The rows of a kind (tables/controls.py), by name."""
    with reader._snapshot():  # the reader's own way of one moment and a deadline
        rows = reader._connection.execute(controls.OF_KIND, (kind,)).fetchall()
    return [
        Control(name, since, until, reason, who, json.loads(value), version)
        for name, value, since, until, who, reason, version in rows
    ]
