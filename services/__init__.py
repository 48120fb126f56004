"""The programs that run on the Pi all the time: can_bridge, deployment_watcher."""
