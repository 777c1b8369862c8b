#!/bin/sh
# The run behind model/weights/evidence.json. About 50 minutes on two cores.
exec .venv/bin/python -m training.calibrate --cache runs/evidence "$@"
