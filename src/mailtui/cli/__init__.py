"""The command line: one module a command group; thin: parse, ask, print.

`main` is the entry point. Modules of commands are imported when they are asked for, so that a command that only reads
starts fast: none of them imports aiohttp, uvloop, textual, dnspython or pydantic before it needs them.
"""

import sys


def main() -> None:
    """Run the command line of this process and exit with the contract's status."""
    from mailtui.cli.app import run

    sys.exit(run(sys.argv[1:]))
