"""A Dovecot of its own: an LMTP server, and the users that a Postfix lets log in.

There are users with a mailbox, some with one that has room for 1 KiB only, and anybody else is unknown.
"""

import os
import pwd
from pathlib import Path

from tests.peers.programs import Directory, Port, Server, need, need_root

# More than the tests ask for, of each kind.
USERS = 50
USER, PASSWORD = "relay", "correct horse battery staple"

CONFIG = """\
protocols = lmtp
base_dir = {top}/run
state_dir = {top}/run
instance_name = {name}
log_path = {top}/dovecot.log
ssl = no
hostname = dovecot.test
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:{top}/mail/%n
mail_plugins = quota
plugin {{
  quota = count:User quota
  quota_vsizes = yes
}}
auth_mechanisms = plain login scram-sha-256
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%n {top}/etc/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {top}/etc/users
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener {top}/lmtp {{
    mode = 0666
  }}
}}
service auth {{
  unix_listener {top}/auth {{
    mode = 0666
  }}
}}
# No waiting after failed logins: here they all come from one address.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""


class Dovecot:
    """`port` and `socket` take LMTP; `auth` is the socket that a Postfix asks about users."""

    def __init__(self) -> None:
        need("dovecot", "dovecot-core dovecot-lmtpd")
        need_root("dovecot")
        self._directory = Directory()
        top = self._directory.path
        self._port = Port()
        self.port, self.socket, self.auth = self._port.number, top / "lmtp", top / "auth"
        self.mail, self.log = top / "mail", top / "dovecot.log"
        nobody = pwd.getpwnam("nobody")
        for name in ("etc", "run", "mail"):
            (top / name).mkdir()
        os.chown(self.mail, nobody.pw_uid, nobody.pw_gid)
        owner = f"{nobody.pw_uid}:{nobody.pw_gid}::{top}/mail::"
        self._fresh, self._small = ([f"{name}{number}" for number in range(USERS)] for name in ("user", "small"))
        users = [f"{USER}:{PASSWORD}:{owner}", *(f"{name}::{owner}" for name in self._fresh)]
        users += [f"{name}::{owner}userdb_quota_rule=*:storage=1" for name in self._small]
        (top / "etc" / "users").write_text("\n".join(users) + "\n")
        config = top / "etc" / "dovecot.conf"
        config.write_text(CONFIG.format(top=top, name=top.name, port=self._port))
        try:
            self._server = Server(["dovecot", "-F", "-c", config], self._port, top / "output.log")
        except AssertionError as error:
            log = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
            self._release()
            raise AssertionError(f"{error}\n{log}") from None

    def address(self) -> str:
        """A user that no test had yet."""
        return f"{self._fresh.pop()}@box.test"

    def small_address(self) -> str:
        """One that has room for 1 KiB only."""
        return f"{self._small.pop()}@box.test"

    def mailbox(self, address: str) -> Path:
        """The Maildir of a user."""
        return self.mail / address.partition("@")[0]

    def stop(self) -> None:
        self._server.stop()
        self._release()

    def _release(self) -> None:
        self._port.close()
        self._directory.remove()
