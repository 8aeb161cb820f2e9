"""The one error of the control room: a sentence for a person, and the exit status of the command that asked."""

# Exit statuses of the contract.
NOT_SO, WRONG, NOT_RUNNING, PREVIEWED = 1, 2, 3, 4

_HTTP = {NOT_SO: 404, WRONG: 400, NOT_RUNNING: 409}

# HTTP statuses with a meaning of their own: what was asked differs from what is; what was named is not kept any more.
DIFFERS, LOST = 409, 410


class VerbError(Exception):
    """A verb cannot be answered. `exit` is 1 (not so), 2 (the call is wrong) or 3 (needs a running relay); `status` is
    that of the answer on the socket, 0 for the usual one."""

    def __init__(self, text: str, exit: int, status: int = 0) -> None:
        super().__init__(text)
        self.text = text
        self.exit = exit
        self._status = status

    @property
    def http(self) -> int:
        """The status of the answer on the socket."""
        return self._status or _HTTP.get(self.exit, 500)
