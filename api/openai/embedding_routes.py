"""Embeddings and models, as the OpenAI SDK asks for them. Tokens are charged as those of questions are."""

from __future__ import annotations

import base64
from pathlib import PurePath
from typing import Annotated, Literal

from fastapi import Request, Response
from pydantic import BaseModel, Field, StringConstraints

from api.idempotency import ChargeId
from api.openai.shapes import openai_router, seconds
from api.routing import Services, Tenant, in_thread, meter_of, scope
from api.schemas.documents import Input, Text
from api.wiring.api import ApiServices
from config.errors import NotFound
from rag.embedding.given import MAX_TEXTS, Wish
from rag.embedding.service import Embedded
from rag.tokens import EncodingName, text_of
from tenants.context import Scope

routes = openai_router()

Tokens = Annotated[list[int], Field(min_length=1, max_length=100_000)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
TokenLists = Annotated[list[Tokens], Field(min_length=1, max_length=MAX_TEXTS)]
Format = Literal["float", "base64"]


class EmbeddingOptions(Input):
    """What Carrel knows besides."""

    input_type: Literal["query", "document"] | None = Field(
        None, description="By which of the model's prompts the texts are read; left out, without one."
    )
    truncate: bool = Field(False, description="Cut a text that the model cannot read whole, instead of refusing it.")
    encoding: EncodingName = Field("cl100k_base", description="Of tokens that are given as numbers.")


class EmbeddingIn(Input):
    input: Text | Texts | Tokens | TokenLists
    model: Text
    dimensions: int | None = Field(None, ge=1)
    encoding_format: Format = "float"
    user: Annotated[Text, StringConstraints(max_length=512)] | None = Field(None, description="Yours; it is kept nowhere.")
    carrel: EmbeddingOptions = Field(default_factory=EmbeddingOptions)

    def texts(self) -> list[str]:
        if isinstance(self.input, str):
            return [self.input]
        if self.input and isinstance(self.input[0], int):
            return [text_of(self.input, self.carrel.encoding)]
        return [one if isinstance(one, str) else text_of(one, self.carrel.encoding) for one in self.input]  # type: ignore[arg-type]


class EmbeddingOut(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="Numbers, or the base64 of little-endian float32.")


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int
    charged_tokens: int = Field(description="Of them; the others were known or repeated.")


class EmbeddingsOut(BaseModel):
    object: Literal["list"] = "list"
    data: list[EmbeddingOut]
    model: str
    usage: EmbeddingUsage


class ModelOut(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "carrel"
    shutdown_date: str | None = None
    dimensions: int
    max_tokens: int
    space: str = Field(description="Fingerprint by which collections name it.")


class ModelsOut(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelOut]


@routes.post(
    "/v1/embeddings",
    operation_id="openai_create_embeddings",
    summary="Embed texts, for whoever keeps the vectors himself",
    response_model=EmbeddingsOut,
    **scope(Scope.QUERY, retrieval=True),
)
async def create_embeddings(
    body: EmbeddingIn, request: Request, services: Services, tenant: Tenant, charge_id: ChargeId
) -> Response:
    _require(services, body.model, field="model")
    meter = meter_of(services, tenant, ())

    def embed() -> tuple[str, Embedded]:
        wish = Wish(body.texts(), body.carrel.input_type, body.dimensions, body.carrel.truncate)
        vectors, embedded = services.openai.given.embed(tenant, meter, wish, charge_id=charge_id)
        encoded = (
            base64.b64encode(vector.astype("<f4").tobytes()).decode() if body.encoding_format == "base64" else vector.tolist()
            for vector in vectors
        )
        usage = EmbeddingUsage(prompt_tokens=embedded.tokens, total_tokens=embedded.tokens, charged_tokens=embedded.charged)
        data = [EmbeddingOut(index=index, embedding=each) for index, each in enumerate(encoded)]
        return EmbeddingsOut(data=data, model=name_of(services), usage=usage).model_dump_json(), embedded

    rendered, embedded = await in_thread(embed)
    request.state.tokens = embedded.charged
    request.state.audit = {"tokens": embedded.tokens}
    return Response(rendered, media_type="application/json")


@routes.get("/v1/models", operation_id="openai_list_models", summary="List the models", **scope(Scope.QUERY))
async def list_models(services: Services, _tenant: Tenant) -> ModelsOut:
    return ModelsOut(data=[_model(services, await in_thread(services.collections.since))])


@routes.get("/v1/models/{model}", operation_id="openai_get_model", summary="Show a model", **scope(Scope.QUERY))
async def get_model(model: Text, services: Services, _tenant: Tenant) -> ModelOut:
    _require(services, model, field="model")
    return _model(services, await in_thread(services.collections.since))


def name_of(services: ApiServices) -> str:
    """The last part of what the operator names it by: it stands in a path, and a folder's others are the machine's own."""
    return PurePath(services.embedding.model.name).name


def _require(services: ApiServices, name: str, *, field: str) -> None:
    if name not in (name_of(services), services.embedding.model.name):
        raise NotFound("There is no such model; GET /v1/models names the one that is loaded.", field=field)


def _model(services: ApiServices, since: int) -> ModelOut:
    fingerprint, space = services.embedding.model.fingerprint, services.embedding.space
    return ModelOut(
        id=name_of(services),
        created=seconds(since),
        dimensions=space.dimensions,
        max_tokens=fingerprint.max_tokens,
        space=space.id,
    )
