"""LitServe: FastAPI in front, queues, inference workers that batch."""
