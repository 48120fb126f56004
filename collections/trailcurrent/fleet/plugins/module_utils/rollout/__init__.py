"""Firmware for all modules of an RV at once: rules (pure decisions), engine (the acts), process (the detached run)."""
