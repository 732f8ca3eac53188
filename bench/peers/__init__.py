"""Other model servers with the same models, for comparison with zmqinfer.

    models.py       the models that all peers serve: echo, mlp (the shipped digits network) and big
    bodies.py       an array as the body of a request or reply, raw or msgpack; also makes the body file for wrk
    load.py         N asyncio tasks that call a peer, one await per call: what both Python clients share
    http_client.py  the Python client of the three HTTP peers
    wrk.lua         the same request for wrk, whose client costs next to nothing
    serving.py      the command line that all servers share
    mosec/          mosec: HTTP in Rust, workers in Python, batches; msgpack bodies
    litserve/       LitServe: FastAPI, queues and workers, batches; raw bodies
    fastapi/        FastAPI on uvicorn with uvloop and httptools, no batches; raw bodies
    grpc/           grpc.aio with generic handlers, no batches; raw messages; has a client.py of its own

A peer lives in an environment of its own, made of its requirements.txt, and is tuned as its documentation says:

    bench/peers/NAME/.venv/bin/python bench/peers/NAME/server.py --model echo --port 8001

serves on 127.0.0.1 until SIGTERM. The HTTP peers take POST /infer with one row and answer with one row.
"""
