"""How tests start Python anew."""

import os
import sys

# The modules that the tests import are found by the processes that they start.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TF_CPP_MIN_LOG_LEVEL": "3"}
