"""Settings for all tests."""

from hypothesis import settings

# The cores are shared with whatever else runs: a slow example is no failure.
settings.register_profile("zmqinfer", deadline=None, derandomize=True)
settings.load_profile("zmqinfer")
