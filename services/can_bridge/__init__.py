"""The CAN bridge: couples the RV's CAN bus to its MQTT broker (PROTOCOLS.md, CAN over MQTT).

    PYTHONPATH=<repo>:<repo>/collections python -m services.can_bridge

One thread does everything that happens often: it waits for the bus and the broker at once, and hands each frame on
without a queue between two threads. What blocks (connecting to the broker, syncing a file to a slow card) has a
thread of its own. Rooms: ``settings`` ← ``queues``, ``status``, ``versions``, ``limited_log`` (pure) ← ``bus``,
``link_state``, ``broker`` (one peer each) ← ``bridge`` (the loop).
"""
