"""A rotation that changes along a take: found, told and followed."""
