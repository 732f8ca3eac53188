"""FastAPI on uvicorn, the model in the handler."""
