"""The one error of the control room: a sentence for a person, and the exit status of the command that asked."""

# Exit statuses of the contract.
NOT_SO, WRONG, NOT_RUNNING = 1, 2, 3

_HTTP = {NOT_SO: 404, WRONG: 400, NOT_RUNNING: 409}


class VerbError(Exception):
    """A verb cannot be answered. `exit` is 1 (not so), 2 (the call is wrong) or 3 (needs a running relay)."""

    def __init__(self, text: str, exit: int) -> None:
        super().__init__(text)
        self.text = text
        self.exit = exit

    @property
    def http(self) -> int:
        """The status of the answer on the socket."""
        return _HTTP.get(self.exit, 500)
