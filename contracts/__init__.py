"""What is true for every part of Lamplight: quantities, payloads, topics, the registry, schemas, file layout.

Every other package may import this one; it imports none of ours.
"""
