"""How many recipients go by each row of the route table, as far as they were planned: `route list`."""

from mailtui.queue.leads import states_of
from mailtui.queue.query import Query
from mailtui.queue.read import Reader
from mailtui.queue.windows import grouped


def by_route(reader: Reader) -> dict[str, int]:
    """Parked recipients by what their route's row matches (or the target that an operator gave), by a scan."""
    everything = Query()
    counts: dict[str, int] = {}
    with reader._snapshot():  # the reader's own way of a deadline
        pace = reader._pace(None)
        select = "SELECT route, COUNT(*)"
        for rows in grouped(
            reader._connection, everything, None, states_of(everything), pace, select, " AND route != '' GROUP BY route"
        ):
            for route, count in rows:
                counts[route] = counts.get(route, 0) + count
    return counts
