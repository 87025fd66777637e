"""`python -m local` runs the supervisor. First of all, it makes the process end with its parent."""

import signal
import sys

from local import interrupts
from local.tether import end_with_parent

if __name__ == "__main__":
    interrupts.obey()
    end_with_parent(signal.SIGTERM)
    # Imports take a second. A parent that ends meanwhile must be noticed too.
    from local.supervisor import supervise

    sys.exit(supervise())
