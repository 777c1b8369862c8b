#!/bin/sh
# The run behind model/weights/evidence.json. About half an hour on two cores.
exec .venv/bin/python -m training.calibrate --cache runs/evidence "$@"
