"""The proofs of what the relay promises, each with its figures: `make prove`, or `python -m bench.prove kill`."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import big, dead, key, kill, million, procs, rss, slow, sync, through
from bench.procs import BenchError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.prove", description=__doc__)
    known = "through, kill, sync, dead, rss, slow, big, million, key"
    parser.add_argument("proof", nargs="*", help=f"{known} (default: all of them)")
    parser.add_argument("--rounds", type=int, default=20, help="of kill")
    parser.add_argument("--seed", type=int, help="of kill, to repeat one")
    parser.add_argument("--rows", type=int, default=million.ROWS, help="of million and key")
    parser.add_argument("--calls", type=int, default=million.CALLS, help="of million, of each form")
    parser.add_argument("--to-sink", action="store_true", help="of million: deliver the 50,000 bounces")
    cache = Path(tempfile.gettempdir()) / "mailtui-bench-stock"
    parser.add_argument("--cache", type=Path, default=cache, help="of million and key, keeps the filled queue: 4 GB")
    options = parser.parse_args(arguments)
    proofs: dict[str, Callable[[], None]] = {
        "through": through.prove,
        "sync": sync.prove,
        "kill": lambda: kill.prove(options.rounds, options.seed),
        "dead": dead.prove,
        "rss": rss.prove,
        "slow": slow.prove,
        "big": big.prove,
        "million": lambda: million.prove(
            options.rows, cache=options.cache, calls=options.calls, to_sink=options.to_sink
        ),
        "key": lambda: key.prove(options.rows, cache=options.cache),
    }
    wanted = list(proofs) if not options.proof or "all" in options.proof else options.proof
    unknown = [name for name in wanted if name not in proofs]
    if unknown:
        parser.error(f"unknown proof {unknown[0]}; known are {', '.join(proofs)}, all")
    procs.end_all_on_exit()
    failed = []
    for name in wanted:
        began = time.monotonic()
        try:
            proofs[name]()
        except BenchError as error:
            failed.append(name)
            print(f"FAILED {name}: {error}", file=sys.stderr)
        finally:
            procs.end_all()
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    print(f"{len(wanted) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
