"""Orders that are about the relay and its next hops, not about chosen recipients: pause, suspend, limit, route, reload.

Promises: what is set is on disk, and in the journal with the command that repeats it, when the answer comes.
"""

from typing import Any

from mailtui.address import AddressError, destination_of
from mailtui.control import access
from mailtui.control.answers import parse_query
from mailtui.control.clean import clean
from mailtui.control.errors import NOT_SO, WRONG, VerbError
from mailtui.control.live import Live
from mailtui.control.orders import Wanted
from mailtui.control.reads import Document
from mailtui.control.words import command_line
from mailtui.intake.probes import ProbesFailed
from mailtui.queue.rows import Counts
from mailtui.values import format_duration


class Controls:
    """Previews and carries out such orders."""

    def __init__(self, live: Live) -> None:
        self.live = live

    async def preview(self, want: Wanted) -> Document:
        """What an order would do; the counts are of the recipients that wait for what it names."""
        verb, values = want.verb, want.values
        counts = Counts(0, 0, 0)
        said: list[str] = []
        if verb.words[0] == "dest":
            name = place(str(values["name"]))
            counts = await self._count(name)
            meanwhile = "meanwhile" if verb.name == "dest.suspend" else "for it"
            said.append(f"{counts.recipients:,} recipients wait {meanwhile}.")
        elif verb.words[0] == "route":
            said += self._route_effects(want)
        elif verb.words[0] == "user":
            counts = await self._count_of(f'user:"{values["name"]}"')
            said.append(f"{counts.recipients:,} recipients of its mail are queued.")
        said.append(verb.preview)
        if verb.name == "pause" or verb.name == "dest.suspend":
            wait = values.get("for")
            said.append(f"It ends by itself in {format_duration(wait)}." if wait else "It ends when it is resumed.")
        return {
            "verb": verb.name,
            "command": command_line(verb, args=want.args, reason=want.reason),
            "messages": counts.messages,
            "recipients": counts.recipients,
            "bytes": counts.bytes,
            "oldest": None,
            "destinations": 0,
            "sample": [],
            "left_out": [],
            "effects": said,
            "danger": verb.danger,
            "undo_seconds": None,
        }

    async def _count(self, name: str) -> Counts:
        """What waits for a destination, or else for a next hop."""
        for term in ("dest", "hop") if _is_domain(name) else ("hop",):
            if (found := await self._count_of(f'{term}:"{name}"')).recipients:
                return found
        return Counts(0, 0, 0)

    async def _count_of(self, text: str) -> Counts:
        query = parse_query(text, self.live.clock.now())
        claimed, active = self.live.claimed(), self.live.active()
        return await self.live.scan(lambda reader: reader.count(query, claimed, active))

    def _route_effects(self, want: Wanted) -> list[str]:
        match = str(want.values["match"])
        now = next((row for row in self.live.routes() if row["match"] == match and not row["shadowed"]), None)
        return [f"{match} goes to {now['target']} now ({now['source']})."] if now else [f"{match} has no route now."]

    async def run(self, want: Wanted) -> Document:
        """Do it. VerbError if it cannot be done."""
        live, verb, values, who, reason = self.live, want.verb, want.values, want.who, want.reason
        command = command_line(verb, args=want.args, reason=reason)
        until = live.clock.now() + values["for"] if "for" in values else None
        match verb.name:
            case "pause":
                await live.pause(values["what"], until, reason, who)
                text = f"{values['what']} paused{_for(values)}"
            case "resume":
                paused = live.paused
                await live.resume(who)
                text = f"{paused} resumed" if paused else "nothing was paused"
            case "dest.suspend":
                name = place(str(values["name"]))
                await live.suspend(name, until, reason, who)
                text = f"{name} suspended{_for(values)}"
            case "dest.resume":
                name = place(str(values["name"]))
                if not await live.unsuspend(name, who):
                    raise VerbError(f"{name} is not suspended; see mailtui dest list", NOT_SO)
                text = f"{name} resumed"
            case "dest.limit":
                text = await self._limit(values, who)
            case "route.set":
                text = await self._set_route(values, who)
            case "route.unset":
                text = await self._unset_route(str(values["match"]), who)
            case "access.grant" | "access.revoke" | "access.probe.add" | "access.probe.remove":
                text = await access.order(live, verb.name, values, who, reason)
            case "reload":
                try:
                    errors = await live.reload()
                except ProbesFailed as failed:
                    told = clean("; ".join(failed.errors))
                    raise VerbError(f"not reloaded, the old configuration stays: {told}", NOT_SO) from None
                if errors:
                    raise VerbError(f"not reloaded, the old configuration stays: {'; '.join(errors)}", WRONG)
                text = "the configuration was read again"
            case "stop":
                text = "the relay drains and stops"
            case _:
                raise VerbError(f"{' '.join(verb.words)} is not done over the socket", WRONG)
        await self.note(want, command, text)
        if verb.name == "stop":
            live.stop_relay()
        return {"verb": verb.name, "command": command, "text": text}

    async def _limit(self, values: dict[str, Any], who: str) -> str:
        name = place(str(values["name"]))
        concurrency, rate = values.get("concurrency"), values.get("rate")
        if values.get("clear"):
            if concurrency is not None or rate is not None:
                raise VerbError("dest limit: --clear stands alone; leave it out, or the limits", WRONG)
            await self.live.limit(name, None, None, who)
            return f"{name}: no limit but the configuration's"
        if concurrency is None and rate is None:
            raise VerbError("dest limit needs --concurrency N, --rate 100/1m or --clear", WRONG)
        await self.live.limit(name, concurrency, rate, who)
        said = [f"{concurrency} connections"] if concurrency is not None else []
        said += [f"{rate[0]} messages in {format_duration(rate[1])}"] if rate is not None else []
        return f"{name}: at most {', '.join(said)}"

    async def _set_route(self, values: dict[str, Any], who: str) -> str:
        match, target = str(values["match"]), str(values["target"])
        options: dict[str, str] = {name: str(values[name]) for name in OPTIONS if name in values}
        check_route(match, target, options)
        try:
            await self.live.set_route(match, target, options, who)
        except ValueError as error:
            raise VerbError(f"route set: {error}", WRONG) from None
        return f"{match} goes to {target}"

    async def _unset_route(self, match: str, who: str) -> str:
        try:
            gone = await self.live.unset_route(match, who)
        except ValueError as error:
            raise VerbError(f"route unset: {error}", WRONG) from None
        if not gone:
            row = next((row for row in self.live.routes() if row["match"] == match), None)
            where = "it stands in the file: edit that, and mailtui reload" if row else "see mailtui route list"
            raise VerbError(f"{match} has no live route; {where}", NOT_SO)
        left = next((row for row in self.live.routes() if row["match"] == match), None)
        return f"{match} goes to {left['target']} again (file)" if left else f"{match} has no route any more"

    async def written(self, want: Wanted, text: str) -> Document:
        """A backup is written: note it."""
        command = command_line(want.verb, args=want.args, reason=want.reason)
        await self.note(want, command, text)
        return {"verb": want.verb.name, "command": command, "text": text}

    async def note(self, want: Wanted, command: str, text: str) -> None:
        """The journal, committed, and the event."""
        event = want.verb.name.replace(".", "-")
        self.live.store.journal(event, who=want.who, command=command, text=text, reason=want.reason)
        await self.live.store.writer.call(lambda tx: None)  # behind the journal's line
        self.live.events.emit(event, text=text, who=want.who, command=command, reason=want.reason)


# Options of a route, in the order of the contract.
OPTIONS: tuple[str, ...] = ("auth", "tls", "source")

# `[tls] default` and the levels of a route (contract.md "TLS levels").
LEVELS = ("none", "may", "encrypt", "verify", "dane", "dane-only", "mta-sts", "auto")


def check_route(match: str, target: str, options: dict[str, str]) -> None:
    """VerbError for a route that cannot be used."""
    from mailtui.routing.routes import parse_match, parse_target, unsupported

    try:
        parse_match(match)
        refusal = unsupported(parse_target(target), **{name: options.get(name, "") for name in OPTIONS})
    except ValueError as error:
        raise VerbError(f"route set: {error}", WRONG) from None
    if refusal is not None:
        raise VerbError(f"route set: {refusal}", WRONG)
    if options.get("tls", "auto") not in LEVELS:
        raise VerbError(f"route set: tls={options['tls'][:40]} is no TLS level; known: {', '.join(LEVELS)}", WRONG)


def place(text: str) -> str:
    """A destination in canonical form, or the key of a next hop as it is."""
    text = text.strip()
    try:
        return destination_of(text)
    except AddressError:
        pass
    if not text or not text.isprintable() or " " in text or len(text) > 2000:
        raise VerbError(
            f'"{text[:80]}" is neither a destination nor a next hop; for example example.com, [192.0.2.1]'
            " or [mx.example.com]:25",
            WRONG,
        )
    return text


def _is_domain(name: str) -> bool:
    try:
        destination_of(name)
    except AddressError:
        return False
    return True


def _for(values: dict[str, Any]) -> str:
    return f" for {format_duration(values['for'])}" if "for" in values else ""
