"""mmstream: sound and sight on one clock, published over MQTT.

Data flows left to right: sources, rings, windows, worker (features, detectors, models), heads,
rules, sinks. Start reading at `mmstream.stages`.
"""

__version__ = "0.1.0"
