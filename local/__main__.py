"""`python -m local`: the supervisor. It is tied to the process that started it before anything
else.
"""

import signal
import sys

from local import interrupts
from local.tether import end_with_parent

if __name__ == "__main__":
    interrupts.obey()
    end_with_parent(signal.SIGTERM)
    # Libraries take a second to read. Who ends this meanwhile, or dies, shall be noticed too.
    from local.supervisor import supervise

    sys.exit(supervise())
