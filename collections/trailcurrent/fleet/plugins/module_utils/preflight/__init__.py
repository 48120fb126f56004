"""What must be true of an inventory and a host before anything on it is changed."""
