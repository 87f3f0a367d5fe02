"""The REST API of a subscriber, on Falcon under waitress."""
