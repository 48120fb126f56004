"""The two environment files of an RV as one truth."""
