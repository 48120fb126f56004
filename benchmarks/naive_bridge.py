"""What one writes in an afternoon: paho's thread, a loop around ``bus.recv``, JSON. Ours is measured against it."""

from __future__ import annotations

import json
import os
import urllib.parse

import can
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion


def bits(byte: int) -> list[int]:
    """The bits of a byte, most significant first."""
    return [int(bit) for bit in format(byte, "08b")]


def main() -> None:
    """Run until killed."""
    url = urllib.parse.urlsplit(os.environ["MQTT_BROKER_URL"])
    bus = can.Bus(
        interface=os.environ["CAN_INTERFACE"],
        channel=os.environ["CAN_CHANNEL"],
        port=int(os.environ["CAN_PORT"]),
        hop_limit=0,
    )

    def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        frame = json.loads(message.payload)
        data = [int("".join(map(str, byte)), 2) for byte in frame["data"]]
        length = frame["data_length_code"]
        identifier = int(frame["identifier"], 16)
        bus.send(can.Message(arbitration_id=identifier, is_extended_id=bool(frame["extd"]), data=data[:length]))

    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set(os.environ["MQTT_USERNAME"], os.environ["MQTT_PASSWORD"])
    if url.scheme == "mqtts":
        client.tls_set(ca_certs=os.environ["MQTT_CA_CERT"])
    client.on_connect = lambda *_: client.subscribe("can/outbound", qos=1)
    client.on_message = on_message
    client.connect(str(url.hostname), url.port or 1883)
    client.loop_start()
    while True:
        message = bus.recv()
        if message is not None:
            frame = {
                "identifier": f"0x{message.arbitration_id:03x}",
                "data_length_code": message.dlc,
                "data": [bits(byte) for byte in message.data],
                "timestamp": message.timestamp,
            }
            client.publish("can/inbound", json.dumps(frame))


if __name__ == "__main__":
    main()
