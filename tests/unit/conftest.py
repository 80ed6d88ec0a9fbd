"""How properties are tested."""

from hypothesis import settings

# A machine that does other things may take its time over an example; in CI, Hypothesis' own
# profile for that says more and is kept.
settings.register_profile("unhurried", settings.default, deadline=None)
settings.load_profile("unhurried")
