import signal

from hypothesis import settings
from support.fuzzing import PROFILE

settings.load_profile(PROFILE)


def pytest_configure():
    """Let programs that tests start be interrupted: one started by a shell's `&` would inherit that SIGINT is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
