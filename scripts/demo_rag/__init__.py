"""The demo of persistdict: a small retrieval pipeline whose embeddings are cached on disk."""
