"""A child in place of the real one: it never gets ready, and does not hear its input's end."""

from __future__ import annotations

import time

if __name__ == "__main__":
    time.sleep(3600)
