"""A map on its way to the Pi."""
