"""One peer each, over sockets or processes."""
