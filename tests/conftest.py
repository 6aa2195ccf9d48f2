"""Settings of the whole test suite."""

from hypothesis import settings

settings.register_profile("convscope", deadline=None)  # the first call of torch is slow
settings.load_profile("convscope")
