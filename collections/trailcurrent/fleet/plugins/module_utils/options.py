"""Option sets that several modules share. Each has a doc fragment of the same name; a test compares the two."""

from __future__ import annotations

import typing as t

Options = dict[str, t.Any]

MQTT: t.Final[Options] = {
    "env_file": {"type": "path", "default": "~/local_code/.env"},
    "mqtt_url": {"type": "str"},
    "mqtt_username": {"type": "str"},
    "mqtt_password": {"type": "str", "no_log": True},
    "mqtt_ca_cert": {"type": "path"},
    "mqtt_timeout": {"type": "float", "default": 10.0},
}

MONGODB: t.Final[Options] = {
    "mongodb_uri": {"type": "str", "no_log": True, "default": "mongodb://127.0.0.1:27017"},
    "mongodb_database": {"type": "str", "default": "trailcurrent"},
    "mongodb_timeout": {"type": "float", "default": 5.0},
    "container": {"type": "str"},
}

UPLOAD: t.Final[Options] = {
    "hostname": {"type": "str", "required": True},
    "address": {"type": "str"},
    "firmware": {"type": "path", "required": True},
    "ready_timeout": {"type": "float", "default": 60.0},
    "upload_timeout": {"type": "float", "default": 300.0},
}
