"""Benchmarks of the service start the same servers as its tests."""

from tests.service.conftest import own_server

__all__ = ["own_server"]
