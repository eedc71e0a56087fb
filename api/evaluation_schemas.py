"""Question sets, feedback and tunings on the wire."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from api.schemas import Input, Text
from config.clock import isoformat
from rag.evaluation.question_sets import MAX_QUESTIONS, Named
from rag.retrieval.question import MAX_QUESTION_CHARS

MAX_RELEVANT, MAX_EXTERNAL_ID = 100, 512


def _asked(text: str) -> str:
    if not text.strip():
        raise ValueError("a question needs text")
    return text


Question = Annotated[Text, Field(min_length=1, max_length=MAX_QUESTION_CHARS), AfterValidator(_asked)]
ExternalId = Annotated[Text, Field(min_length=1, max_length=MAX_EXTERNAL_ID)]


class JudgedIn(Input):
    text: Question
    relevant: dict[ExternalId, Annotated[int, Field(ge=0, le=10)]] = Field(
        min_length=1, max_length=MAX_RELEVANT, description="External ids of documents, each with its relevance."
    )


class QuestionSetIn(Input):
    name: Text
    collection: Text = "default"
    questions: list[JudgedIn] = Field(min_length=1, max_length=MAX_QUESTIONS)


class QuestionSetOut(BaseModel):
    id: str
    name: str
    collection: str
    count: int
    created_at: str

    @classmethod
    def of(cls, named: Named) -> QuestionSetOut:
        row = named.row
        return cls(id=row.id, name=row.name, collection=named.collection, count=row.count, created_at=isoformat(row.created_at))


class JudgedOut(BaseModel):
    text: str
    relevant: dict[str, int]


class FullQuestionSetOut(QuestionSetOut):
    questions: list[JudgedOut]

    @classmethod
    def of(cls, named: Named) -> FullQuestionSetOut:
        questions = [JudgedOut.model_validate(each) for each in named.row.questions]
        return cls(**QuestionSetOut.of(named).model_dump(), questions=questions)
