"""Question sets, feedback and tunings on the wire."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from api.schemas.arranging import BoostIn, RecencyIn
from api.schemas.documents import Input, Text
from config.clock import isoformat
from config.errors import InvalidInput
from rag.arranging.tuning import Tuning
from rag.arranging.wishes import MAX_BOOSTS
from rag.evaluation.feedback import Given, Opinion
from rag.evaluation.question_sets import MAX_QUESTIONS, Named
from rag.evaluation.tables import TuningVersion
from rag.evaluation.tunings import Tunings
from rag.types import MAX_QUESTION_CHARS

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


class FeedbackIn(Input):
    """Of a passage or of a document, one of the two; `useful`, `rating`, or both."""

    query: Question = Field(description="To which it was an answer.")
    passage_id: Text | None = Field(None, max_length=100)
    document_id: Text | None = Field(None, max_length=100)
    useful: bool | None = None
    rating: int | None = Field(None, ge=1, le=5, description="5 is best.")
    comment: Text | None = Field(None, max_length=1_000)
    subject: Text | None = Field(None, max_length=200, description="Who says so, as you name your users.")

    def opinion(self) -> Opinion:
        if (self.passage_id is None) == (self.document_id is None):
            raise InvalidInput("Give either a `passage_id` or a `document_id`.", field="passage_id")
        if self.useful is None and self.rating is None:
            raise InvalidInput("Give `useful` or a `rating`.", field="useful")
        return Opinion(**self.model_dump())


class FeedbackOut(BaseModel):
    id: str
    query: str
    collection: str
    document_id: str
    external_id: str
    passage_id: str | None
    useful: bool | None
    rating: int | None
    comment: str | None
    subject: str | None
    created_at: str

    @classmethod
    def of(cls, given: Given) -> FeedbackOut:
        fields = given.row.model_dump(exclude={"created_at"})
        named = {"collection": given.collection, "external_id": given.external_id}
        return cls.model_validate({**fields, **named, "created_at": isoformat(given.row.created_at)})


class ParametersIn(Input):
    """What is added to the scores of the collection's passages, as a query takes it."""

    dense_weight: float | None = Field(None, ge=0, le=1, description="Of fusion; null leaves it to the profile.")
    boosts: list[BoostIn] = Field(default_factory=list, max_length=MAX_BOOSTS)
    recency: RecencyIn | None = None

    def parameters(self) -> dict[str, Any]:
        given = self.model_dump()
        Tuning.of(given)
        return given


class FiguresIn(Input):
    """Of questions that it was not fitted to."""

    questions: int = Field(ge=0)
    ndcg10_before: float = Field(ge=0, le=1)
    ndcg10_after: float = Field(ge=0, le=1)
    p: float = Field(ge=0, le=1, description="That chance alone would do as much.")


class TuningIn(Input):
    parameters: ParametersIn
    figures: FiguresIn | None = Field(None, description="What speaks for it; kept and shown.")
    replaces: int = Field(ge=0, description="The active version that this was compared with; 0: none. Another is 409.")


class TuningVersionOut(BaseModel):
    version: int
    replaces: int
    parameters: dict[str, Any]
    figures: dict[str, Any]
    applied_at: str
    rolled_back_at: str | None


class TuningsOut(BaseModel):
    active: int = Field(description="0: the collection is not tuned.")
    versions: list[TuningVersionOut] = Field(description="Newest first, at most 20.")

    @classmethod
    def of(cls, tunings: Tunings) -> TuningsOut:
        return cls(active=tunings.active, versions=[_version(row) for row in tunings.versions])


def _version(row: TuningVersion) -> TuningVersionOut:
    ended = None if row.rolled_back_at is None else isoformat(row.rolled_back_at)
    times = {"applied_at": isoformat(row.applied_at), "rolled_back_at": ended}
    return TuningVersionOut.model_validate({**row.model_dump(exclude={*times}), **times})
