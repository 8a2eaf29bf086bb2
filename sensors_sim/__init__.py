"""The devices: signals with a ground truth, faults, store-and-forward over MQTT, replay of recorded feeds."""
