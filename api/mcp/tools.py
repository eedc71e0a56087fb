"""The tools that read, and the resources. Each is bounded: a model's context is small, and somebody pays for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from api.mcp.answers import CollectionShown, CollectionsShown, Fetched, Found, FoundAll, Knowledge, url_of, web_address
from api.mcp.calls import Call, refusals
from api.schemas.documents import Text
from rag.arranging.wishes import Wishes
from rag.filters import parse
from rag.packing.counting import TokenizerName, counter
from rag.packing.packing import pack
from rag.retrieval.question import MAX_COLLECTIONS, Question
from rag.types import MAX_QUESTION_CHARS

TOKENIZER: TokenizerName = "o200k_base"
RESULTS, CANDIDATES, MAX_SHOWN = 10, 20, 100
DEFAULT_TOKENS, MAX_TOKENS = 2_000, 20_000
MAX_FETCHED_CHARS, AROUND = 20_000, 1_000
READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

Asked = Annotated[Text, Field(min_length=1, max_length=MAX_QUESTION_CHARS, description="A question or key words.")]
Collection = Annotated[
    Text | None, Field(description=f"One collection by name; left out, all that the key sees, up to {MAX_COLLECTIONS}.")
]
Any_ = Context[Any, Any]


def search(query: Asked, ctx: Any_) -> FoundAll:
    """Find the documents that answer a question, best first. Read one with `fetch`."""
    call = Call(ctx)
    with refusals():
        question = _question(call, query, None, None, RESULTS, Wishes(per_document=1))
        if question is None:
            return FoundAll(results=[])
        answer = call.services.retriever.for_tenant(call.tenant, call.meter(question.collections)).query(
            question, charge_id=call.charge_id
        )
    call.spent(answer.charged + answer.rerank_tokens)
    call.record("search", passages=[passage.id for passage in answer.passages])
    found = [Found(id=each.document_id, title=each.title, url=url_of(each, call.base)) for each in answer.passages]
    return FoundAll(results=found)


def fetch(
    id: Annotated[Text, Field(description="Of a document, from `search`, or of a passage, from `knowledge_search`.")],
    ctx: Any_,
    start: Annotated[int, Field(ge=0, description="Character to begin at: `next_start` of the answer before.")] = 0,
) -> Fetched:
    """Read a document, or a passage with what stands around it. Long documents come in pieces."""
    call = Call(ctx)
    with refusals():
        return _document(call, id, start) if id.startswith("doc_") else _passage(call, id)


def _document(call: Call, document_id: str, start: int) -> Fetched:
    shown, text = call.services.documents.for_tenant(call.tenant).text(document_id)
    call.record("fetch", documents=[document_id])
    document, version = shown.document, shown.version
    piece = text[start : start + MAX_FETCHED_CHARS]
    end = start + len(piece)
    metadata: dict[str, Any] = {"collection": shown.collection, "external_id": document.external_id}
    metadata |= {"version": version.number, "start": start, "end": end, "total_chars": len(text)}
    if end < len(text):
        metadata["next_start"] = end
    url = web_address(version.source) or f"{call.base}/v1/documents/{document_id}/text"
    return Fetched(id=document_id, title=version.title or document.external_id, text=piece, url=url, metadata=metadata)


def _passage(call: Call, passage_id: str) -> Fetched:
    shown = call.services.passages.for_tenant(call.tenant).get(passage_id, around=AROUND)
    call.record("fetch", passages=[passage_id])
    passage = shown.passage
    start = passage.start - len(shown.before)
    metadata = {"document_id": passage.document_id, "collection": passage.collection, "external_id": passage.external_id}
    places = {"start": start, "end": passage.end + len(shown.after), "passage_start": passage.start, "passage_end": passage.end}
    text = shown.before + passage.text + shown.after
    url = url_of(passage, call.base)
    return Fetched(id=passage_id, title=passage.title, text=text, url=url, metadata={**metadata, **places})


def knowledge_search(
    query: Asked,
    ctx: Any_,
    collection: Collection = None,
    filters: Annotated[
        dict[str, Any] | None,
        Field(
            description="Over attributes: `key`, `op` (eq ne in nin exists gt gte lt lte), `value`; `and`, `or`, `not` nest.",
            examples=[{"key": "year", "op": "gte", "value": 2020}],
        ),
    ] = None,
    max_tokens: Annotated[int, Field(ge=100, le=MAX_TOKENS, description="Of the text, which never has more.")] = DEFAULT_TOKENS,
) -> Annotated[CallToolResult, Knowledge]:
    """Get the passages that answer a question as one text to answer from, with citations to give beside the answer."""
    call = Call(ctx)
    with refusals():
        question = _question(call, query, collection, filters, CANDIDATES, Wishes())
        if question is None:
            return _said(Knowledge(text="", tokens=0, citations=[], left_out=0, degraded=[]))
        answer = call.services.retriever.for_tenant(call.tenant, call.meter(question.collections)).query(
            question, charge_id=call.charge_id
        )
        packed = pack(answer.passages, max_tokens, counter(TOKENIZER, call.services.embedding.model))
    call.spent(answer.charged + answer.rerank_tokens)
    call.record("knowledge_search", passages=[cited.passage.id for cited in packed.citations])
    return _said(Knowledge.of(packed, answer, call.base))


def _said(knowledge: Knowledge) -> CallToolResult:
    """The text is for the model, once; its citations are beside it for whoever shows the answer."""
    text = knowledge.text or "Nothing was found."
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=knowledge.model_dump())


def _question(
    call: Call, query: str, collection: str | None, filters: dict[str, Any] | None, top_k: int, wishes: Wishes
) -> Question | None:
    """None: the caller has no collection."""
    names = call.collections(collection)
    if not names:
        return None
    condition = None if filters is None else parse(filters)
    return Question(text=query, collections=names, top_k=top_k, filter=condition, wishes=wishes)


def list_collections(ctx: Any_) -> CollectionsShown:
    """List the collections that can be searched, with the number of documents in each."""
    call = Call(ctx)
    call.record("list_collections")
    with refusals():
        rows = call.services.collections.for_tenant(call.tenant).list(after=None, limit=MAX_SHOWN + 1)
    shown = [CollectionShown(name=row.name, documents=documents) for row, documents in rows[:MAX_SHOWN]]
    return CollectionsShown(collections=shown, more=len(rows) > MAX_SHOWN)


def document(document_id: str, ctx: Any_) -> str:
    """The first 20,000 characters of a document's text; `fetch` reads on."""
    call = Call(ctx)
    with refusals():
        return _document(call, document_id, 0).text


TITLES: dict[Callable[..., Any], str] = {
    search: "Search",
    fetch: "Read",
    knowledge_search: "Search for knowledge",
    list_collections: "List collections",
}


def add_reading(server: MCPServer) -> None:
    for tool, title in TITLES.items():
        server.add_tool(tool, title=title, annotations=READS)
    server.resource("carrel://documents/{document_id}", mime_type="text/plain")(document)
