"""`mailtui flush|pause|resume|reload|stop`: what concerns everything."""

import time

import click

from mailtui.cli import output
from mailtui.cli.act import command_of
from mailtui.cli.frame import Fail, Place, command_options
from mailtui.control.errors import NOT_SO
from mailtui.control.source import attach, need
from mailtui.control.verbs import VERBS

flush = command_of(VERBS["flush"])
pause = command_of(VERBS["pause"])
resume = command_of(VERBS["resume"])
reload = command_of(VERBS["reload"])

# Between two looks whether the relay is gone, in seconds.
_LOOK = 0.05

# A relay drains for `[limits] drain`, and is gone soon after; after this long with nothing to drain, it hangs.
_PATIENCE = 60.0


@click.command("stop")
@command_options()
def stop(place: Place) -> None:
    """Drain and stop the relay, and wait until it is gone.

    What is queued stays in the queue. If a service manager looks after the relay, tell that one instead.

    \b
    Example:
      mailtui stop
    """
    relay = need(place.socket, "stop")
    try:
        drain = next((v["value"] for v in relay.config()["values"] if v["key"] == "limits.drain"), "15s")
        answer = relay.verb("stop", args={})
    finally:
        relay.close()
    from mailtui.values import parse_duration

    until = time.monotonic() + parse_duration(drain) + _PATIENCE
    while (still := attach(place.socket)) is not None:
        still.close()
        if time.monotonic() > until:
            raise Fail("the relay was told to stop, and still runs; see its log", NOT_SO)
        time.sleep(_LOOK)
    if place.json:
        output.document({**answer, "text": "the relay has stopped"})
    else:
        output.say("The relay has stopped.")
