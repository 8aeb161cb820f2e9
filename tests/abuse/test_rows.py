"""Every requirement on the door has a case here that names it, or the reason why it has none."""

import re
from pathlib import Path

ROWS = {"S": 38, "X": 23, "P": 19, "M": 14, "R": 12}  # session, extensions, permission, smuggling, resources
ELSEWHERE = {
    "X06": "what a client does: tests/delivery",
    "X14": "the codes of every reply here are checked by case",
    "X16": "what is sent on: tests/delivery",
    "X20": "REQUIRETLS is not offered; X19 has that it is refused then",
    "X21": "what is sent on: tests/tls",
    "X22": "LIMITS is not offered, and so never untrue",
    "P19": "null MX, SPF and DKIM of senders are not looked at",
    "R08": "what is sent on: tests/delivery",
    "R12": "answers of name servers: tests/routing",
}


def test_every_row_has_a_case() -> None:
    folder = Path(__file__).parent
    text = "".join(path.read_text() for path in folder.glob("*.py") if path.name != Path(__file__).name)
    cited = set()
    for rows in re.findall(r'Case\("([^"]+)"|# ([A-Z]\d\d.*)', text):
        cited.update(re.findall(r"\b[A-Z]\d\d\b", " ".join(rows)))
    wanted = {f"{section}{number:02}" for section, last in ROWS.items() for number in range(1, last + 1)}
    assert wanted - cited - set(ELSEWHERE) == set()
    assert cited & set(ELSEWHERE) == set()  # else the reason is out of date
