"""Placeholder: written by the session's helpers."""
