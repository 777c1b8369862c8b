"""The alignment service: HTTP in front, a durable job table, workers behind.

The process that answers HTTP imports neither torch nor the heavy parts of `model`; all decoding and
scoring happens in a child process that a worker supervises (`service.workers.child`).
"""
