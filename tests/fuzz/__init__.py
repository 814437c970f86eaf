"""Hostile bytes for every decoder: what is decoded is in `targets`, how bytes are changed in `mutate`."""
