"""What an action will do, in sentences, for its preview: reports, attempts, recipients in delivery."""

from mailtui.control.picture import Picture
from mailtui.control.verbs import Verb
from mailtui.values import format_duration


def sentences(verb: Verb, picture: Picture, grace: float | None, wait: float | None = None) -> list[str]:
    """One sentence each. `grace`: seconds until it cannot be undone, None if there are none; `wait`: of defer."""
    said = [verb.preview]
    if verb.action in ("bounce", "delete") and grace is None:
        said = ["They leave the queue at once: this cannot be undone."]
    if verb.action == "defer" and wait:
        said = [f"Their next attempt is in {format_duration(wait)}; attempt counts and expiry are kept."]
    if verb.action == "bounce":
        said.append(_reports(picture))
    if picture.active and verb.action in ("hold", "defer", "bounce", "delete", "reroute"):
        said.append(
            f"{_count(picture.active, 'is', 'are')} in delivery or about to be: what is on a connection"
            f" is {_PAST[verb.action]} if its attempt ends undelivered."
        )
    if verb.query:
        said.append("New arrivals are not included.")
    return said


_PAST = {"hold": "held", "defer": "deferred", "bounce": "bounced", "delete": "deleted", "reroute": "rerouted"}


def _reports(picture: Picture) -> str:
    told = f"{picture.reports:,} report{'' if picture.reports == 1 else 's'} to senders"
    if not picture.silent:
        return f"{told}."
    return f"{told}; for {picture.silent:,} recipients nobody is told (null sender, or no notice wanted)."


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
