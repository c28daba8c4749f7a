"""Where messages go: an MQTT broker (`mqtt`), JSON lines (`jsonl`), a screen (`terminal`), a list
(`memory`).

`mqtt` is the sink; `mqtt_topics` says which topics and retained values follow from a message,
`mqtt_connection` is one connection to a broker, `outbox` holds what waits for it. `broker` is a
small MQTT broker for those who have none.
"""
