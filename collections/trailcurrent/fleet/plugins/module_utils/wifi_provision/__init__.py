"""Wi-Fi credentials for an RV's modules: where they come from, whether to send them, and sending them whole."""
