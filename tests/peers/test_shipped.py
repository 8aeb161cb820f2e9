"""The installed command with a configuration file, between a client and a smarthost that others wrote."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.peers.certificates import Certificates
from tests.peers.conftest import listener
from tests.peers.content import MESSAGE, below, trace
from tests.peers.dovecot import PASSWORD, USER
from tests.peers.postfix import Postfix
from tests.peers.programs import Directory, Port, Server, mailbox, need, run

MAILTUI = Path(sys.executable).with_name("mailtui")


async def test_from_msmtp_by_tls_to_a_smarthost_by_tls(
    certificates: Certificates, postfix: Postfix, secrets: Callable[[str], Path]
) -> None:
    need("msmtp")
    directory, plain, door = Directory(), Port(), Port()
    config, state = directory.path / "mailtui.toml", directory.path / "state"
    config.write_text(
        f'hostname = "relay.test"\n[limits]\nfree_disk = "1M"\n[[listener]]\naddress = "127.0.0.1:{plain}"\n'
        + listener("door", "implicit", certificates, door.number)
        + f'[delivery]\nsmarthost = "smtp://[localhost]:{postfix.port("submission")}"\nsmarthost_auth = "{USER}"\n'
        + f'secrets = "{secrets(f"localhost {USER} {PASSWORD}")}"\n[tls]\nca_file = "{certificates.authority}"\n'
    )
    options: list[str | Path] = ["--state", state, "--config", config]
    relay = Server([MAILTUI, "serve", *options], plain, directory.path / "relay.log")
    try:
        to = postfix.address()
        done = await run(
            "msmtp", "--host=localhost", f"--port={door}", "--tls=on", "--tls-starttls=off",
            f"--tls-trust-file={certificates.authority}", "--from=ann@sender.test", to,
            given=MESSAGE.replace(b"\r\n", b"\n"),
        )  # fmt: skip
        assert done.status == 0, done.output
        [got] = await mailbox(postfix.mailbox(to))
        assert below(got) == MESSAGE
        theirs, ours = trace(got)
        assert b" with ESMTPSA " in theirs and b" with ESMTPS " in ours
        while not (shown := await run(MAILTUI, "history", "--json", *options)).output:
            assert shown.status == 0  # Postfix stores a message sooner than the relay knows of it
        past = json.loads(shown.output)
        assert (past["recipient"], past["result"], past["tls"]["reached"]) == (to, "delivered", "encrypted")
        shown = await run(MAILTUI, "config", "show", *options)
        assert shown.status == 0 and PASSWORD not in shown.output
    finally:
        relay.stop()
        log = relay.log.read_text()
        directory.remove()
        plain.close()
        door.close()
    assert PASSWORD not in log
