"""For all tests: hypothesis tries the same examples every time, so that a run says the same about the same code.

`HYPOTHESIS_PROFILE=search python -m pytest ...` looks for new ones.
"""

import os

from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
