"""The configuration: every value typed, every error at once with its line, nothing silently ignored."""

import ipaddress
from pathlib import Path

import pytest
import trustme

from mailtui import config, paths, toml_lines
from mailtui.config import ConfigError, QuickOptions, Rate, Settings, check_files, effective, load, parse

CONTRACT = """
hostname = "Relay.Example.ORG."

[[listener]]
name = "mx"
address = "127.0.0.1:2500"

[access]
networks = ["127.0.0.0/8", "::1/128", "192.0.2.0/24"]
local_domains = ["Example.COM", "bücher.example"]
relay_domains = ["customer.example."]
recipients = "any"

[[route]]
match = "example.com"
target = "smtp://[mailbox.internal]:25"

[mail]
postmaster = "postmaster@example.org"

[delivery]
port = 2525
smarthost = "smtp://[smart.example]:25"
rate = "100/1m"
connect_timeout = "1m30s"

[retry]
schedule = ["5m", "1h"]
warn = ""

[bounce]
return = "10K"

[dns]
nameservers = ["127.0.0.1:5353", "::1"]

[limits]
message_size = "10M"
free_disk = 4096

[trace]
trusted = ["192.0.2.0/24", "gate.example"]

[log]
format = "json"
"""


def errors(text: str, source: str = "f.toml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, source)
    assert str(caught.value) == "\n".join(caught.value.errors)
    return caught.value.errors


def test_every_value_has_its_type() -> None:
    settings = parse(CONTRACT)
    assert settings.hostname == "relay.example.org"
    listener = settings.listener[0]
    assert (listener.name, listener.host, listener.port, listener.role, listener.tls) == (
        "mx", "127.0.0.1", 2500, "relay", "none",
    )  # fmt: skip
    assert settings.access.networks[2] == ipaddress.ip_network("192.0.2.0/24")
    assert settings.access.local_domains == ["example.com", "xn--bcher-kva.example"]
    assert settings.access.relay_domains == ["customer.example"]
    assert (settings.route[0].match, settings.route[0].target) == ("example.com", "smtp://[mailbox.internal]:25")
    assert settings.delivery.rate == Rate(100, 60.0)
    assert settings.delivery.connect_timeout == 90.0
    assert settings.retry.schedule == [300.0, 3600.0]
    assert settings.retry.warn is None
    assert settings.bounce.return_ == 10240
    assert settings.dns.nameservers == ["127.0.0.1:5353", "::1"]
    assert (settings.limits.message_size, settings.limits.free_disk) == (10 << 20, 4096)
    assert settings.trace.trusted == ["192.0.2.0/24", "gate.example"]


def test_defaults_relay_for_loopback_only() -> None:
    settings = Settings()
    assert [(one.name, one.address) for one in settings.listener] == [("default", "127.0.0.1:2525")]
    assert settings.access.networks == [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
    assert settings.retry.schedule == [300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0]
    assert settings.model_dump() == parse("").model_dump()
    assert "." in settings.hostname


def test_settings_cannot_be_changed_after_they_were_read() -> None:
    with pytest.raises(ValueError):
        Settings().delivery.port = 26


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ('hostname = "x.test"\n[delivery]\nprot = 25\n', 3, "delivery.prot", "expected port?"),
        ("nonsense = 1", 1, "nonsense", "is unknown, expected hostname | listener"),
        ("[delivery]\n# a comment\nport = '25'", 3, "delivery.port", '"25" is a text, expected a whole number'),
        ("[delivery]\nport = 0", 2, "delivery.port", "expected at least 1"),
        ("[delivery]\nport = 65536", 2, "delivery.port", "expected at most 65535"),
        ("[delivery]\nport = true", 2, "delivery.port", "expected a whole number"),
        ("[delivery]\nprefer = 'ipv5'", 2, "delivery.prefer", "expected any | ipv4 | ipv6"),
        ("[delivery]\nconnect_timeout = 30", 2, "delivery.connect_timeout", "expected one such as"),
        ("[delivery]\nconnect_timeout = '5 m'", 2, "delivery.connect_timeout", "is not a duration"),
        ("[delivery]\nconnect_timeout = '0s'", 2, "delivery.connect_timeout", "expected more"),
        ("[delivery]\nrate = '0/1m'", 2, "delivery.rate", "is not a rate"),
        ("[delivery]\nrate = '5'", 2, "delivery.rate", "is not a rate"),
        ("[delivery]\nsource_ipv4 = '::1'", 2, "delivery.source_ipv4", "is not an IPv4 address"),
        ("[delivery]\nsmarthost = 'gopher://x'", 2, "delivery.smarthost", "expected"),
        ("[limits]\nmessage_size = '5X'", 2, "limits.message_size", "is not a size"),
        ("[limits]\nrecipients = 0", 2, "limits.recipients", "expected at least 1"),
        ("[retry]\nschedule = []", 2, "retry.schedule", "expected at least one value"),
        ("[retry]\nschedule = [\n '5m',\n 'soon',\n]", 4, "retry.schedule", '"soon" is not a duration'),
        ("[access]\nnetworks = ['10.0.0.1/8']", 2, "access.networks", 'expected the network "10.0.0.0/8"'),
        ("[access]\nnetworks = [7]", 2, "access.networks", "7 is not a text"),
        ("[access]\nnetworks = '10.0.0.0/8'", 2, "access.networks", "expected a list in [ ]"),
        ("[access]\nlocal_domains = ['a..b']", 2, "access.local_domains", "is not a domain name"),
        ("[access]\naddress_literals = 'yes'", 2, "access.address_literals", "expected true or false"),
        ("access = 5", 1, "access", "5 is a number, expected a table"),
        ("hostname = 'x_y'", 1, "hostname", "is not a host name"),
        ("[[listener]]\nname = 'a'", 1, "listener.address", "is missing"),
        ("\nlistener = [\n {address='127.0.0.1:1'},\n {address='127.0.0.1'},\n]", 4, "listener.address", "port"),
        ("listener = {address='127.0.0.1:1'}", 1, "listener", "expected [[listener]]"),
        ("[[listener]]\naddress='::1:25'", 2, "listener.address", "is not an address with a port"),
        ("[[route]]\nmatch = 'x.test'", 1, "route.target", "is missing"),
        ("[[route]]\nmatch = '@'\ntarget = 'mx'", 2, "route.match", "is not a route match"),
        ("[mail]\npostmaster = 'nobody'", 2, "mail.postmaster", "is not a mail address"),
        ("[dns]\nnameservers = ['ns.example']", 2, "dns.nameservers", "is not a name server"),
    ],
)
def test_an_error_names_file_line_key_and_what_was_expected(text: str, line: int, key: str, says: str) -> None:
    found = errors(text)
    assert len(found) == 1
    assert found[0].startswith(f"f.toml: line {line}: {key}: ")
    assert says in found[0]
    assert "\n" not in found[0]


def test_all_errors_come_at_once_and_in_order_of_lines() -> None:
    found = errors(
        "[delivery]\nprot = 25\nport = 'x'\n[[listener]]\naddress = '192.0.2.1:25'\n"
        "[access]\nlocal_domains = ['a.test']\n"
    )
    assert [one.split(": ")[1:3] for one in found] == [
        ["line 2", "delivery.prot"],
        ["line 3", "delivery.port"],
        ["line 5", "mail.postmaster"],
        ["line 7", "access.recipients"],
    ]


def test_a_checks_line_is_right_behind_a_row_that_is_wrong() -> None:
    found = errors('[access]\nnetworks = [\n "x",\n "0.0.0.0/0",\n]\n')
    assert [one.split(": ")[1] for one in found] == ["line 3", "line 4"]


@pytest.mark.parametrize(
    ("text", "line"), [("a = [", 1), ("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ('x = "\n"', 1), ("[a]\n[a]\n", 2)]
)
def test_what_is_not_toml_is_one_error_with_its_line(text: str, line: int) -> None:
    found = errors(text)
    assert len(found) == 1
    assert found[0].startswith(f"f.toml: line {line}: ")


@pytest.mark.parametrize(
    "networks",
    [
        '["0.0.0.0/0"]',
        '["::/0"]',
        '["0.0.0.0/1", "128.0.0.0/1"]',
        '["2000::/3"]',
        '["::ffff:0:0/96"]',
        '["127.0.0.0/8", "::/0"]',
    ],
)
def test_networks_that_are_everybody_are_refused(networks: str) -> None:
    found = errors(f"[access]\nnetworks = {networks}")
    assert "EVERYBODY" in found[0]
    assert "OPEN RELAY" in found[0]


@pytest.mark.parametrize("networks", ['["10.0.0.0/8", "fd00::/8"]', "[]", '["0.0.0.0/1"]'])
def test_other_networks_are_taken(networks: str) -> None:
    parse(f"[access]\nnetworks = {networks}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[access]\nrelay_domains = ['a.test']", "access.recipients: is not set"),
        ("[[listener]]\naddress = '[::]:25'", "mail.postmaster: is not set"),
        ("[[listener]]\naddress='127.0.0.1:1'\n[[listener]]\naddress='127.0.0.1:2'", "used twice"),
        ("[[route]]\nmatch='A.test'\ntarget='mx'\n[[route]]\nmatch='a.test'\ntarget='mx'", "given twice"),
        ("[[listener]]\naddress='127.0.0.1:1'\nrole='submission'", 'listener.tls: is "none"'),
        ("[[listener]]\naddress='127.0.0.1:1'\nauth='optional'", 'listener.tls: is "none"'),
        ("[[listener]]\naddress='127.0.0.1:1'\nauth_without_tls=true", "auth_without_tls: is for no AUTH"),
        ("[access]\ncertificates = ['" + "ab" * 32 + "']", "access.certificates: are asked for by no listener"),
        ("[[listener]]\naddress='127.0.0.1:1'\nclient_ca='/x'", "client_ca: is for no TLS"),
    ],
)
def test_values_that_need_each_other(text: str, says: str) -> None:
    assert says in errors(text)[0]


_LISTENER = "[[listener]]\naddress = '127.0.0.1:1'\n"


@pytest.mark.parametrize(
    "text",
    [
        "[[route]]\nmatch = 'a.test'\ntarget = 'mx'\ntls = 'dane-only'",
        "[[route]]\nmatch = 'a.test'\ntarget = 'mx'\ntls = 'mta-sts'",
        "[tls]\ndefault = 'dane'",
        "[tls]\ndefault = 'dane-only'",
        "[tls]\ndefault = 'mta-sts'",
    ],
)
def test_a_safeguard_that_is_not_carried_out_is_refused(text: str) -> None:
    found = errors(text)
    assert len(found) == 1
    assert "not supported by this version" in found[0]


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        (
            "[delivery]\nsmarthost = 'smtp://[a.test]:587'\nsmarthost_auth = 'me'",
            "delivery.secrets",
            "smarthost_auth is",
        ),
        (
            "[[route]]\nmatch = 'b.test'\ntarget = 'smtp://[a.test]'\nauth = 'me'",
            "delivery.secrets",
            "[[route]] b.test",
        ),
        ("[delivery]\nsecrets = '/x'\nsmarthost_auth = 'me'", "delivery.smarthost_auth", "for no smarthost"),
        (
            "[delivery]\nsecrets = '/x'\n"
            "[[route]]\nmatch = 'b.test'\ntarget = 'smtp://[a.test]'\nauth = 'me'\ntls = 'may'",
            "route.target",
            "too weak for auth=me",
        ),
        ("[delivery]\nsecrets = '/x'\nsmarthost = 'mx'\nsmarthost_auth = 'me'", "delivery.smarthost", "the DNS names"),
        (
            "[[route]]\nmatch = 'b.test'\ntarget = 'smtps://[a.test]'\ntls = 'none'",
            "route.target",
            "TLS from the start",
        ),
    ],
)
def test_a_password_is_configured_whole_or_not_at_all(text: str, key: str, says: str) -> None:
    [found] = errors(text)
    assert key in found
    assert says in found


@pytest.mark.parametrize(
    "text",
    [
        "[delivery]\nsmarthost = 'smtps://[a.test]|smtp://[a.test]:587'\nsmarthost_auth = 'me'\nsecrets = '/x'",
        "[[route]]\nmatch = 'from:a.test'\ntarget = 'lmtp:unix:/run/lmtp'",
        "[[route]]\nmatch = 'a.test'\ntarget = 'mx'\ntls = 'verify'\nsource = '192.0.2.1'",
        "[tls]\ndefault = 'encrypt'",
        "[tls]\ndefault = 'verify'\nca_file = '/x'",
    ],
)
def test_ways_out_that_are_carried_out(text: str) -> None:
    parse(text)


def test_a_file_of_passwords_is_for_the_relay_alone(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    settings = parse(f"[delivery]\nsecrets = '{secrets}'\n", "f.toml")
    [missing] = check_files(settings)
    assert missing.startswith("f.toml: line 2: delivery.secrets: ")
    assert "No such file" in missing
    secrets.write_text("a.test me hunter2\n")
    secrets.chmod(0o640)
    [wide] = check_files(settings)
    assert "mode 0640" in wide
    assert "expected mode 0600" in wide
    assert "hunter2" not in wide
    secrets.chmod(0o600)
    assert check_files(settings) == []
    [folder] = check_files(parse(f"[delivery]\nsecrets = '{tmp_path}'\n"))
    assert "is not a file" in folder


def test_anchors_that_are_none_are_told_at_the_start(tmp_path: Path) -> None:
    anchors = tmp_path / "ca.pem"
    settings = parse(f"[tls]\nca_file = '{anchors}'\n", "f.toml")
    [missing] = check_files(settings)
    assert (
        missing == f"f.toml: line 2: tls.ca_file: {anchors} cannot be read: No such file or directory, "
        "expected PEM certificates"
    )
    anchors.write_text("hello")
    [empty] = check_files(settings)
    assert "no PEM certificate" in empty
    trustme.CA().cert_pem.write_to_path(str(anchors))
    assert check_files(settings) == []


def test_a_listener_with_tls_needs_a_certificate_and_its_key() -> None:
    first, second = errors(_LISTENER + "tls = 'starttls'\n")
    assert first.startswith("f.toml: line 3: listener.certificate: is not set, expected a PEM file")
    assert second.startswith("f.toml: line 3: listener.key: is not set")
    (missing,) = errors(_LISTENER + "tls = 'implicit'\ncertificate = '/x'\n")
    assert missing.startswith("f.toml: line 3: listener.key: is not set")
    (useless,) = errors(_LISTENER + "certificate = '/x'\n")
    assert useless.startswith("f.toml: line 3: listener.certificate: is for no TLS")


def test_certificates_that_cannot_be_used_are_told_at_the_start(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    settings = parse(_LISTENER + f"tls = 'starttls'\ncertificate = '{certificate}'\nkey = '{key}'\n", "f.toml")
    [missing] = check_files(settings)
    assert missing == (
        f"f.toml: line 4: listener.certificate: {certificate} cannot be read: No such file or"
        " directory, expected PEM files of a certificate and of its key"
    )
    made, other = trustme.CA().issue_cert("a.test"), trustme.CA().issue_cert("a.test")
    made.cert_chain_pems[0].write_to_path(str(certificate))
    other.private_key_pem.write_to_path(str(key))
    [foreign] = check_files(settings)
    assert f"{key} is not the key of the certificate in {certificate}" in foreign
    made.private_key_pem.write_to_path(str(key))
    assert check_files(settings) == []


def test_quick_options_override_the_file() -> None:
    quick = QuickOptions(listen=("127.0.0.1:1", "[::1]:2"), smarthost="smart.example:26", hostname="Q.test")
    settings = parse(CONTRACT, "f.toml", quick)
    assert [(one.name, one.host, one.port) for one in settings.listener] == [
        ("default", "127.0.0.1", 1),
        ("default-2", "::1", 2),
    ]
    assert (settings.delivery.smarthost, settings.hostname) == ("smart.example:26", "q.test")


def test_errors_of_quick_options_say_so() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("", "", QuickOptions(listen=("nowhere",), hostname="-"))
    assert all(one.startswith("command line: ") for one in caught.value.errors)
    assert len(caught.value.errors) == 2


def test_every_value_says_where_it_comes_from() -> None:
    settings = parse("[delivery]\nport = 26\n[bounce]\nreturn = '1K'\n", "f.toml", QuickOptions(hostname="q.test"))
    found = {entry.key: entry for entry in effective(settings)}
    assert (found["delivery.port"].value, found["delivery.port"].origin) == (26, "f.toml:2")
    assert (found["bounce.return"].value, found["bounce.return"].origin) == ("1K", "f.toml:4")
    assert found["hostname"].origin == "command line"
    assert (found["retry.expire"].value, found["retry.expire"].origin) == ("5d", "default")
    assert found["listener.default.address"].value == "127.0.0.1:2525"
    assert settings.source == "f.toml"


def test_effective_values_read_back_as_the_same() -> None:
    settings = parse(CONTRACT)
    dumped = settings.model_dump(by_alias=True)
    assert Settings.model_validate(dumped).model_dump() == settings.model_dump()


def test_the_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAILTUI_CONFIG", raising=False)
    monkeypatch.setattr(paths, "SYSTEM_CONFIG", tmp_path / "etc.toml")
    state = tmp_path / "state"
    state.mkdir()

    def write(name: str, hostname: str) -> Path:
        (tmp_path / name).write_text(f'hostname = "{hostname}"')
        return tmp_path / name

    assert load(state=state).source == ""
    write("state/mailtui.toml", "state.test")
    assert load(state=state).hostname == "state.test"
    write("etc.toml", "etc.test")
    assert load(state=state).hostname == "etc.test"
    monkeypatch.setenv("MAILTUI_CONFIG", str(write("env.toml", "env.test")))
    assert load(state=state).hostname == "env.test"
    assert load(write("flag.toml", "flag.test"), state=state).hostname == "flag.test"


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml", state=tmp_path)


def test_a_file_that_is_not_utf8_says_in_which_line(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"# a\n# \xff\n")
    with pytest.raises(ConfigError, match="line 2: is not UTF-8"):
        load(tmp_path / "x.toml", state=tmp_path)


def test_files_that_are_named_are_checked_when_asked(tmp_path: Path) -> None:
    text = f"[access]\nlocal_domains = ['a.test']\nrecipients = '{tmp_path}/none'\n"
    problems = config.check_files(parse(text, "f.toml"))
    assert len(problems) == 1
    assert problems[0].startswith("f.toml: line 3: access.recipients: ")
    (tmp_path / "none").write_text("a@a.test\n")
    assert config.check_files(parse(text)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\nb = 2", {("a",): 1, ("b",): 2}),
        ("# x\n\n[t] # y\n k = '''\nq\n'''\nz = 1", {("t",): 3, ("t", "k"): 4, ("t", "z"): 7}),
        ("[[a]]\nx=1\n[[a]]\nx=2", {("a", 0, "x"): 2, ("a", 1, "x"): 4}),
        ("a.b.c = 1", {("a", "b", "c"): 1}),
        ('"a b" = [1,\n [2,\n 3], {x = "]"}]', {("a b", 0): 1, ("a b", 1, 1): 3, ("a b", 2, "x"): 3}),
        ('x = """a\\"""" # c\n\ny = "#="', {("x",): 1, ("y",): 3}),
        ("d = 1979-05-27 07:32:00Z\ne = -1.5e3\n[f.'g.h']\ni = {}", {("d",): 1, ("e",): 2, ("f", "g.h", "i"): 4}),
        ("[[a]]\n[[a.b]]\n[[a.b]]\n[a.b.c]\nx = 1", {("a", 0, "b", 1, "c", "x"): 5}),
    ],
)
def test_lines_of_keys(text: str, expected: dict[tuple[str | int, ...], int]) -> None:
    found = toml_lines.lines(text)
    assert {key: found[key] for key in expected} == expected


def test_the_state_directory_and_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SYSTEM_CONFIG", "SYSTEM_SOCKET"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    monkeypatch.setattr(paths, "SYSTEM_UNITS", ())
    home = {"XDG_STATE_HOME": "/xdg"}
    assert paths.state_dir(environ=home) == Path("/xdg/mailtui")
    assert paths.state_dir(environ={"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/mailtui"
    assert paths.state_dir(environ=home | {"MAILTUI_STATE": "/env"}) == Path("/env")
    assert paths.state_dir("/flag", environ=home | {"MAILTUI_STATE": "/env"}) == Path("/flag")
    (tmp_path / "SYSTEM_CONFIG").touch()
    assert paths.state_dir(environ=home) == Path("/var/lib/mailtui")
    assert paths.socket_path(Path("/flag"), environ={}) == Path("/flag/control.sock")
    assert paths.socket_path(paths.SYSTEM_STATE, environ={}) == tmp_path / "SYSTEM_SOCKET"
    assert paths.socket_path(Path("/flag"), environ={"MAILTUI_SOCKET": "/s"}) == Path("/s")
    assert paths.socket_path(Path("/flag"), "/t", environ={"MAILTUI_SOCKET": "/s"}) == Path("/t")
