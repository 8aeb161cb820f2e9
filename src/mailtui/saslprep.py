"""SASLprep (RFC 4013): user names and passwords as octets that are the same wherever they were typed."""

import stringprep
import unicodedata


def prepared(text: str) -> bytes:
    """A user name or password in UTF-8, normalised. ValueError for a character that SASLprep forbids.

    Code points that Unicode had not assigned in 2002 are taken: people's passwords hold them.
    """
    if not text.isascii():
        kept = (" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
        text = unicodedata.normalize("NFKC", "".join(kept))
    if any(_forbidden(c) for c in text):
        raise ValueError("it holds a character that SASLprep (RFC 4013) forbids")
    return text.encode("utf-8")


def _forbidden(c: str) -> bool:
    return (
        stringprep.in_table_c21_c22(c) or stringprep.in_table_c3(c) or stringprep.in_table_c4(c)
        or stringprep.in_table_c5(c) or stringprep.in_table_c6(c) or stringprep.in_table_c7(c)
        or stringprep.in_table_c8(c) or stringprep.in_table_c9(c)
    )  # fmt: skip
