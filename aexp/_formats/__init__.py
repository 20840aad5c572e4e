"""Bytes: every format that aexp writes or reads, as pure functions."""
