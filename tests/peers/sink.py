"""Postfix's smtp-sink: a next hop that takes everything, and keeps it with the parameters of MAIL and RCPT."""

import os
import pwd
from pathlib import Path

from tests.peers.programs import Directory, Port, Server, kept_files, need


class Sink:
    """`port` takes SMTP. `options` are smtp-sink's: `-N` for one that offers no DSN."""

    def __init__(self, *options: str) -> None:
        need("smtp-sink", "postfix")
        self._directory = Directory()
        self._port = Port()
        self.port = self._port.number
        self._kept = self._directory.path / "kept"
        self._kept.mkdir()
        user: list[str] = []
        if os.geteuid() == 0:
            user = ["-u", "nobody"]
            nobody = pwd.getpwnam("nobody")
            os.chown(self._kept, nobody.pw_uid, nobody.pw_gid)
        command: list[str | Path] = ["smtp-sink", *user, *options, "-h", "sink.test", "-d", f"{self._kept}/one."]
        try:
            self._server = Server([*command, f"127.0.0.1:{self.port}", "100"], self._port, self._kept.parent / "log")
        except BaseException:
            self._release()
            raise

    async def messages(self, count: int = 1) -> list[bytes]:
        """Wait for `count` messages; these, each under lines `X-Mail-Args:` and `X-Rcpt-Args:` of its envelope."""
        return await kept_files(self._kept, "one.*", count)

    def stop(self) -> None:
        self._server.stop()
        self._release()

    def _release(self) -> None:
        self._port.close()
        self._directory.remove()
