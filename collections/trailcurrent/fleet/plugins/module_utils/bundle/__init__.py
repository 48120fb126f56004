"""The signed deployment bundle: built once, trusted everywhere (docs/bundle-format.md)."""
