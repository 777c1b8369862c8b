"""The alignment library: files and arrays in, a report out. It knows no web and no training.

Shape letters, one legend for the whole project:
B batch, V viewpoints, R yaws, C ambisonic channels, N samples, T frames, F mel bands,
H W pixels (rows, columns), A azimuth bins, D embedding.
"""

import os
import sys

# Threads that have nothing to do give up their core. By default they spin for milliseconds, so that
# beside other busy processes (workers, renderers) a job takes several times as long. Read when
# torch is loaded; what is set outside holds.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# So Python calls itself while it looks for the module that `python -m` names: a command of ours,
# whose imports take seconds in which nothing can be left half done.
if sys.argv[:1] == ["-m"]:
    from model.interruption import stoppable_at_once

    stoppable_at_once()
