"""`python -m gtask` is `gtask-worker`."""

from __future__ import annotations

import sys

from .programs.worker import main

sys.exit(main())
