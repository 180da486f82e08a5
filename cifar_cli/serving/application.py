"""The addresses that the server answers: the page, `/predict`, and what describes it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib.resources import files
from typing import Annotated, Any, NamedTuple

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from cifar_cli import __version__
from cifar_cli.data.inputs import Pixels
from cifar_cli.data.sources.decode import decode_image, image_sides
from cifar_cli.data.sources.pixels import (
    NoImageError,
    Rules,
    TooLargeError,
    UnknownFormatError,
)
from cifar_cli.errors import is_out_of_memory
from cifar_cli.serving.bodies import Bodies, refusal
from cifar_cli.serving.lanes import Lane
from cifar_cli.serving.limits import Limits
from cifar_cli.serving.model import Answer, Job, ServedModel, png
from cifar_cli.serving.refusals import Refused, ascii_json, document

PAGE = {"/": "index.html", "/app.js": "app.js", "/style.css": "style.css"}
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
LARGE_PIXELS = 4_000_000
"""Larger pictures, which take long to decode, wait for each other and not before the others."""
BATCH = 16
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "required": ["file"], "properties": {"file": _BINARY["schema"]}}
BODY = {
    "required": True,
    "description": "The picture file as it is, of any content type, or a form with a part `file`.",
    "content": {
        "application/octet-stream": _BINARY,
        "image/*": _BINARY,
        "multipart/form-data": {"schema": _FORM},
    },
}
REFUSALS = {
    400: "The request or its form is damaged, or the host is not this server.",
    403: "A page of another site asks.",
    408: "The picture did not arrive in time.",
    413: "Too many bytes or pixels.",
    415: "Not an image in a format that is read.",
    422: "A damaged picture, or a parameter out of its bounds.",
    429: "Too many requests a second.",
    503: "The server is busy.",
}


class ClassProbability(BaseModel):
    """A class and its probability."""

    class_: str = Field(alias="class")
    probability: float = Field(ge=0, le=1)


class PictureAnswer(BaseModel):
    """An answer; its keys are those of an image of `cifar-resnet predict --json`."""

    schema_version: int
    predictions: list[ClassProbability] = Field(description="The likeliest first.")
    unlike: bool | None = Field(
        description="Whether the picture is unlike the training data; null: unknown."
    )
    error: str | None = Field(description="What is wrong with the request; a sentence.")


class PredictedAnswer(PictureAnswer):
    """With `map=true`, what the network looked at."""

    map: str | None = Field(
        None,
        description="PNG data URL, transparent, of the square that the network sees: where the "
        "picture speaks for the likeliest class.",
    )
    map_error: str | None = Field(None, description="Why there is no map; a sentence.")
    seen: str | None = Field(None, description="PNG data URL of the pixels that the network sees.")


class _File(NamedTuple):
    """What is decoded."""

    data: bytes
    rules: Rules
    max_pixels: int


def application(model: ServedModel, limits: Limits, network: Lane[Job, Answer]) -> FastAPI:
    """The application, without the checks of `Gate`.

    Args:
        model: What is served.
        limits: How much a client may ask for.
        network: Where `model.classify` runs.
    """
    app = FastAPI(
        title="cifar-resnet",
        summary="Classifies pictures.",
        version=__version__,
        docs_url=None,  # both load scripts of others
        redoc_url=None,
        responses={
            status: {"model": PictureAnswer, "description": text}
            for status, text in REFUSALS.items()
        },
    )
    small: Lane[_File, Pixels | None] = Lane(_each(_decode_small), "pictures", threads=2)
    large: Lane[_File, Pixels] = Lane(_each(_decode), "large pictures", most=16)
    bodies = Bodies(limits)

    async def pixels_of(request: Request) -> Pixels:
        async with bodies.picture(request) as data:
            if not data:
                raise Refused(400, "The request has no picture in its body.")
            file = _File(data, model.rules, limits.max_pixels)
            found = await small.do(file)
            return await large.do(file) if found is None else found

    @app.post(
        "/predict",
        response_model=PredictedAnswer,
        summary="Classify a picture",
        openapi_extra={"requestBody": BODY},
    )
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, le=10_000, description="Number of classes.")] = 5,
        map: Annotated[bool, Query(description="Whether to add the activation map.")] = False,
    ) -> Response:
        pixels = await pixels_of(request)
        answer = await network.do(Job(pixels, top, map))
        return _json(_document(answer, pixels if map else None))

    @app.get("/healthz", summary="Whether the server is up")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    facts = model.facts(limits.max_bytes, limits.max_pixels)

    @app.get("/model", summary="What is served", response_model=dict[str, Any])
    async def served() -> Response:
        return _json(facts)

    for path, name in PAGE.items():
        app.get(path, include_in_schema=False)(_page_file(name))
    _add_refusals(app)
    return app


def _each(work: Callable[[_File], Any]) -> Callable[[list[_File]], list[Any]]:
    return lambda jobs: [work(job) for job in jobs]


def _decode(file: _File) -> Pixels:
    """The pixels that the network sees.

    Raises:
        Refused: It cannot be read as a picture.
    """
    try:
        return decode_image(file.data, file.rules, file.max_pixels).pixels
    except NoImageError as error:
        kinds = {TooLargeError: 413, UnknownFormatError: 415}
        status = kinds.get(type(error), 422)
        raise Refused(status, f"The picture cannot be read: {error}.") from None


def _decode_small(file: _File) -> Pixels | None:
    """The same, or None for a large picture."""
    try:
        width, height = image_sides(file.data)
    except NoImageError:
        return _decode(file)  # which says what is wrong
    is_large = LARGE_PIXELS < width * height <= file.max_pixels
    return None if is_large else _decode(file)


def _document(answer: Answer, seen: Pixels | None) -> dict[str, Any]:
    predictions = [{"class": name, "probability": share} for name, share in answer.predictions]
    more = {}
    if seen is not None:
        more = {
            "map": _data_url(answer.map) if answer.map else None,
            "map_error": answer.map_problem,
            "seen": _data_url(png(seen)),
        }
    return document(predictions, answer.unlike, None, **more)


def _data_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def _json(value: object) -> Response:
    return Response(ascii_json(value), media_type="application/json")


def _page_file(name: str) -> Callable[[], Any]:
    content = files("cifar_cli.serving").joinpath("page", name).read_bytes()
    kind = TYPES[name.rpartition(".")[2]]

    async def answer() -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return answer


def _add_refusals(app: FastAPI) -> None:
    """Answer every error with a status and a sentence in JSON."""

    async def own(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return await refusal(request, error)

    async def of_router(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentences = {
            404: "There is nothing at this address.",
            405: "The address takes other methods.",
        }
        sentence = sentences.get(error.status_code, "The request cannot be answered.")
        return await refusal(request, Refused(error.status_code, sentence))

    async def of_query(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        sentence = f"The parameter {first['loc'][-1]} is wrong: {first['msg']}."
        return await refusal(request, Refused(422, sentence))

    async def of_program(request: Request, error: Exception) -> Response:
        if is_out_of_memory(error):
            refused = Refused(503, "There is too little memory for this picture.", retry_after=1)
        else:
            refused = Refused(500, "The server failed on this request.")
        return await refusal(request, refused)

    app.add_exception_handler(Refused, own)
    app.add_exception_handler(HTTPException, of_router)
    app.add_exception_handler(RequestValidationError, of_query)
    app.add_exception_handler(Exception, of_program)
