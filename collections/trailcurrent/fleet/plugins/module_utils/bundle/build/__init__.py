"""From a release's source to its bundle: gathered, packed, signed, written."""
