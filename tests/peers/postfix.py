"""A Postfix of its own: a client whose relayhost is the relay, a next hop, and a smarthost that wants a login.

What comes for a mailbox at `next.test` lies in its Maildir; unknown ones are refused; all else goes to the relayhost.
"""

import os
import pwd
import subprocess
from pathlib import Path

from bench import peers

from tests.peers.certificates import Certificates
from tests.peers.programs import Directory, Port, Server, need, need_root

MAIN_CF = """\
compatibility_level = 3.6
myhostname = postfix.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
alias_database =
relayhost = [127.0.0.1]:{relayhost}
smtp_tls_security_level = may
queue_directory = {top}/spool
data_directory = {top}/data
maillog_file = {top}/postfix.log
maillog_file_prefixes = {top}
# A mailbox per local part, delivered by this Postfix itself.
virtual_mailbox_domains = next.test
virtual_mailbox_base = {top}/mail
virtual_mailbox_maps = texthash:{top}/etc/mailboxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
# Clients on loopback are other machines here: nothing of their messages is completed or rewritten.
local_header_rewrite_clients =
smtpd_relay_restrictions = permit_mynetworks, reject
# A next hop that takes a bare LF for the end of a line, as Postfix 3.7 does when nothing is said.
smtpd_forbid_bare_newline = no
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
# The trace line says what was used.
smtpd_tls_received_header = yes
smtpd_sasl_authenticated_header = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {sasl}
"""

MASTER_CF = """\
{plain} inet n - n - - smtpd
{starttls} inet n - n - - smtpd -o smtpd_tls_security_level=may
{submission} inet n - n - - smtpd
 -o smtpd_tls_security_level=encrypt -o smtpd_tls_auth_only=yes -o smtpd_sasl_auth_enable=yes
 -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
 -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
{submissions} inet n - n - - smtpd
 -o smtpd_tls_wrappermode=yes -o smtpd_sasl_auth_enable=yes
 -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
 -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
{plainauth} inet n - n - - smtpd
 -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_mechanism_filter=plain
 -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
{login} inet n - n - - smtpd
 -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_mechanism_filter=login
 -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
{scram} inet n - n - - smtpd
 -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_mechanism_filter=scram-sha-256
 -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
virtual unix - n n - - virtual
postlog unix-dgram n - n - 1 postlogd
"""

# More than the tests ask for.
MAILBOXES = 500
INTERNATIONAL = "köln@next.test"  # a mailbox whose name only SMTPUTF8 can carry
SERVICES = ("plain", "starttls", "submission", "submissions", "plainauth", "login", "scram")


class Postfix:
    """`ports` by the name of the service (SERVICES); `relayhost` is the port where a test starts its relay.

    `sasl`: the socket of the Dovecot that knows the users.
    """

    def __init__(self, certificates: Certificates, sasl: Path) -> None:
        need("postfix")
        need_root("postfix")
        self._directory = Directory()
        top = self._directory.path
        self.mail, self.log = top / "mail", top / "postfix.log"
        self.ports = {name: Port() for name in SERVICES}
        self.relayhost = Port()
        postfix, nobody = pwd.getpwnam("postfix"), pwd.getpwnam("nobody")
        for name in ("etc", "spool", "data", "mail"):
            (top / name).mkdir()
        os.chown(top / "data", postfix.pw_uid, postfix.pw_gid)
        os.chown(self.mail, nobody.pw_uid, nobody.pw_gid)
        main = MAIN_CF.format(
            top=top,
            relayhost=self.relayhost,
            uid=nobody.pw_uid,
            gid=nobody.pw_gid,
            certificate=certificates.chain,
            key=certificates.key,
            sasl=sasl,
        )
        (top / "etc" / "main.cf").write_text(main)
        services = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        (top / "etc" / "master.cf").write_text(MASTER_CF.format(**services) + peers.MASTER_CF)
        self._fresh = iter([f"box{number}@next.test" for number in range(MAILBOXES)])
        lines = [f"box{number}@next.test box{number}/\n" for number in range(MAILBOXES)]  # with a slash: a Maildir
        lines.append(f"{INTERNATIONAL} {INTERNATIONAL.partition('@')[0]}/\n")
        (top / "etc" / "mailboxes").write_text("".join(lines), encoding="utf-8")
        try:
            # Makes the directories of the queue.
            subprocess.run(["postfix", "-c", top / "etc", "check"], check=True, capture_output=True, timeout=60)
            programs = subprocess.run(
                ["postconf", "-h", "daemon_directory"], capture_output=True, text=True, timeout=60
            )
            master = Path(programs.stdout.strip()) / "master"
            self._server = Server([master, "-c", top / "etc", "-d"], self.ports["plain"], self.log)
        except BaseException:
            self._release()
            raise

    def port(self, service: str) -> int:
        return self.ports[service].number

    def address(self) -> str:
        """A mailbox that no test had yet."""
        return next(self._fresh)

    def mailbox(self, address: str) -> Path:
        """The Maildir of an address."""
        return self.mail / address.partition("@")[0]

    def stop(self) -> None:
        self._server.stop()
        self._release()

    def _release(self) -> None:
        for port in (*self.ports.values(), self.relayhost):
            port.close()
        self._directory.remove()
