"""How many files and connections this process may have open at once: getrlimit(2), RLIMIT_NOFILE."""

import resource

# Beside connections: the database and its readers, spool files, the control socket, name resolution.
OTHERS = 256


def allow(connections: int) -> int:
    """Raise the limit of this process, as far as it may, to what so many connections need; how many there can be.

    The soft limit is 1024 nearly everywhere, for programs that use select(2); the hard one is what is meant."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHERS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else min(connections, soft - OTHERS)
