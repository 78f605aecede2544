"""A small HTTP service: images in, classes out.

    pip install 'gluon_asymmnet[serving]'
    python examples/serving.py exported --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/classify

Requests that wait while the engine computes are computed together, as the next batch.  Memory is
bounded: at most ``--waiting`` requests of at most ``--max-bytes`` each are held, and one image is
decoded at a time.  More requests get status 503, larger ones 413, bytes that are not an image 400.
"""

import argparse
import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import uvicorn
from fastapi import FastAPI, HTTPException, Request

from gluon_asymmnet import FormatError, InputError, Predictor


class Limits(NamedTuple):
    """What the service holds at most."""

    batch: int = 16  # images computed together
    waiting: int = 64  # requests
    max_bytes: int = 10 << 20  # of an image file
    top: int = 5  # classes of an answer


class Batcher:
    """Compute what waits together, in one thread."""

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor, self.limits = predictor, limits
        self.batches: list[int] = []  # sizes of the last ones
        self._queue: asyncio.Queue = asyncio.Queue()

    async def classify(self, data: bytes) -> list:
        """Return the best classes of an image file.  Raises: FormatError, InputError."""
        answer = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((data, answer))
        return await answer

    async def run(self) -> None:
        """Compute batches until it is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread:
            while True:
                batch = [await self._queue.get()]
                while not self._queue.empty() and len(batch) < self.limits.batch:
                    batch.append(self._queue.get_nowait())
                self.batches = [*self.batches[-99:], len(batch)]
                found = await loop.run_in_executor(thread, self._compute, [x for x, _ in batch])
                for (_, answer), result in zip(batch, found):
                    if answer.done():  # the client has gone
                        continue
                    if isinstance(result, Exception):
                        answer.set_exception(result)
                    else:
                        answer.set_result(result)

    def _compute(self, files: list[bytes]) -> list:
        """Return the classes of each image, or its error."""
        try:
            return self.predictor.classify(files, self.limits.top, self.limits.batch)
        except Exception as error:
            if len(files) == 1:
                return [error]
        return [self._compute([file])[0] for file in files]  # one is bad: which?


def make_app(predictor: Predictor, limits: Limits = Limits()) -> FastAPI:  # noqa: B008 - constant
    """Return the service of a predictor."""
    held = 0  # requests

    @contextlib.asynccontextmanager
    async def lifespan(app):
        app.state.batcher = batcher = Batcher(predictor, limits)
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()

    app = FastAPI(title="AsymmNet", lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict:
        return {"engine": predictor.engine, "model": predictor.card.model, "waiting": held,
                "last_batches": app.state.batcher.batches[-10:]}  # fmt: skip

    @app.post("/classify")
    async def classify(request: Request) -> list[dict]:
        nonlocal held
        if held >= limits.waiting:
            raise HTTPException(503, "too many requests wait", {"Retry-After": "1"})
        held += 1
        try:
            data = await _body(request, limits.max_bytes)
            found = await app.state.batcher.classify(data)
        except (FormatError, InputError) as error:
            raise HTTPException(400, str(error)) from None
        finally:
            held -= 1
        return [score._asdict() for score in found]

    return app


async def _body(request: Request, limit: int) -> bytes:
    """Return the body; stop reading at the limit, whatever the header says."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise HTTPException(413, f"more than {limit} bytes")
    return bytes(data)


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Serve a classifier over HTTP.")
    parser.add_argument("model", help="exported folder or file, or run directory")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    for name, value in Limits._field_defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    args = parser.parse_args()
    limits = Limits(*(getattr(args, name) for name in Limits._fields))
    app = make_app(Predictor(args.model, args.engine), limits)
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
