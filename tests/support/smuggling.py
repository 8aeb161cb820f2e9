"""What some server or other took for the end of the data (VU#302671), and only CRLF.CRLF is (RFC 5321 section 4.1.1.4).

In the order of the requirements M02 (CR and LF alone), M03 (NUL and blanks) and M04 (what Python calls a line end).
"""

LOOK_ALIKES = {
    "lf.lf": b"\n.\n",
    "lf.crlf": b"\n.\r\n",
    "crlf.lf": b"\r\n.\n",
    "cr.cr": b"\r.\r",
    "cr.crlf": b"\r.\r\n",
    "crlf.cr": b"\r\n.\r",
    "cr.lf": b"\r.\n",
    "lf.cr": b"\n.\r",
    "lf.cr-crlf": b"\n.\r\r\n",
    "crlf.cr-crlf": b"\r\n.\r\r\n",
    "cr-crlf.cr-crlf": b"\r\r\n.\r\r\n",
    "crlf.nul-crlf": b"\r\n.\0\r\n",
    "crlf-nul.crlf": b"\r\n\0.\r\n",
    "cr-nul-lf.cr-nul-lf": b"\r\0\n.\r\0\n",
    "crlf.sp-crlf": b"\r\n. \r\n",
    "crlf-sp.crlf": b"\r\n .\r\n",
    "crlf-tab.crlf": b"\r\n\t.\r\n",
    "crlf..crlf": b"\r\n..\r\n",
    "lf-lf.lf-lf": b"\n\n.\n\n",
    "lf-cr.lf-cr": b"\n\r.\n\r",
    "vt.vt": b"\v.\v",
    "ff.ff": b"\f.\f",
    "fs.fs": b"\x1c.\x1c",
    "gs.gs": b"\x1d.\x1d",
    "rs.rs": b"\x1e.\x1e",
    "nel.nel": b"\x85.\x85",
    "utf8-nel.nel": b"\xc2\x85.\xc2\x85",
    "ls.ls": b"\xe2\x80\xa8.\xe2\x80\xa8",
    "ps.ps": b"\xe2\x80\xa9.\xe2\x80\xa9",
}
