"""Seals: what is done to the bytes that a codec has made before they reach the store. See seal.py for the format."""
