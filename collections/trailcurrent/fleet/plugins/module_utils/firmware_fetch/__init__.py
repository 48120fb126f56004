"""Brings firmware from the release pages of its makers to the laptop."""
