"""A backup of an RV: taken whole or not at all, and put back only when all of it is proven."""
