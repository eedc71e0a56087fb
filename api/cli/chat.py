"""`carrel chat`: a conversation in the terminal that shows what a language model is given, and what that came from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape

from api.cli.common import AsJson, TenantOption, notes, out, print_json, tenant_client
from carrel_client import Context
from config.errors import SetupError, Unavailable
from config.settings import Settings

ANSWER_TOKENS, ANSWER_S = 1_000, 120.0
Subject = Annotated[str, typer.Option("--subject", "-s", help="Whose session a new one is: your name for the end user.")]
SessionId = Annotated[str | None, typer.Option("--session", help="Go on with this session; without it a new one begins.")]
Collection = Annotated[list[str] | None, typer.Option("--collection", "-c", help="Collections to search; repeat it.")]
Tokens = Annotated[int, typer.Option("--max-tokens", "-m", min=1, help="Tokens that the model is given at most.")]
Strategy = Annotated[str, typer.Option("--strategy", help="hybrid, recent, recall or documents.")]
Memories = Annotated[bool, typer.Option("--memories", help="Also what is remembered of the subject.")]
LlmUrl = Annotated[str | None, typer.Option("--llm-url", help="Base URL of an OpenAI-compatible chat endpoint that answers.")]
LlmModel = Annotated[str | None, typer.Option("--llm-model", help="Its name of the model. Its key: CARREL_LLM_API_KEY.")]


def register(app: typer.Typer) -> None:
    app.command()(chat)


def chat(
    tenant: TenantOption = None,
    subject: Subject = "terminal",
    session: SessionId = None,
    collection: Collection = None,
    max_tokens: Tokens = 4000,
    strategy: Strategy = "hybrid",
    memories: Memories = False,
    llm_url: LlmUrl = None,
    llm_model: LlmModel = None,
    as_json: AsJson = False,
) -> None:
    """Talk in the terminal: each line becomes a turn of a session, and what was recalled and cited for it is shown.

    Without --llm-url nobody answers: what a language model would be given is printed. With --json each line of input gives
    one of output. An empty line is passed over; the end of input (Ctrl-D) ends the chat, and the session stays.

    Example: carrel chat --tenant acme --subject ann --llm-url http://127.0.0.1:11434/v1 --llm-model llama3.2
    """
    settings = Settings()
    model = _Model.of(settings, llm_url, llm_model)
    wishes = {"collections": collection or None, "strategy": strategy, "memories": memories or None}
    with tenant_client(settings, tenant, ["query", "converse"]) as client:
        session_id = session or client.sessions.create(subject=subject).id
        _begin(session_id, as_json)
        try:
            for line in _lines(as_json):
                context = client.chat_context(session=session_id, message=line, max_tokens=max_tokens, **wishes)  # type: ignore[arg-type]
                client.sessions.say(session_id, "user", line)
                _show(context, as_json)
                answer = None if model is None else model.answer(context.messages or [])
                if answer is not None:
                    client.sessions.say(session_id, "assistant", answer)
                _show_answer(context, answer, as_json)
        finally:
            if model is not None:
                model.close()


@dataclass(frozen=True, slots=True)
class _Model:
    """The endpoint that answers."""

    remote: Any

    @classmethod
    def of(cls, settings: Settings, url: str | None, name: str | None) -> _Model | None:
        if url is None and name is None:
            return None
        if url is None or name is None:
            raise SetupError("An answer needs both --llm-url and --llm-model.")
        from rag.llm.remote import RemoteLanguageModel

        key = settings.llm_api_key
        return cls(RemoteLanguageModel(url, key.get_secret_value().strip() if key else None, model=name))

    def answer(self, messages: list[dict[str, str]]) -> str:
        from rag.llm.base import CompletionFailed

        try:
            return str(self.remote.converse(messages, max_tokens=ANSWER_TOKENS, deadline_s=ANSWER_S).text)
        except CompletionFailed as error:
            raise Unavailable(f"The language model does not answer: {error}.") from error

    def close(self) -> None:
        self.remote.close()


def _lines(as_json: bool) -> Iterator[str]:
    """What is typed, until the end."""
    asks = sys.stdin.isatty() and not as_json
    while True:
        if asks:
            out.print("[bold]you>[/bold] ", end="")
        line = sys.stdin.readline()
        if not line:
            return
        if text := line.strip():
            yield text


def _begin(session_id: str, as_json: bool) -> None:
    if as_json:
        print_json({"session": session_id})
    else:
        notes.print(f"[dim]Session {session_id}. End with Ctrl-D; go on with --session {session_id}.[/dim]")


def _show(context: Context, as_json: bool) -> None:
    if as_json:
        return
    for turn in context.turns:
        if turn.place == "recalled":
            said = context.text[turn.context_start : turn.context_end].split("\n", 1)[-1].rpartition("\n")[0]
            out.print(f"[dim]recalled turn {turn.seq}, {turn.role}, {turn.said_at[:16]}: {escape(_line(said))}[/dim]")
    for cited in context.citations:
        name, place = cited.source or cited.title or cited.external_id, f"characters {cited.start}-{cited.end}"
        out.print(f"[dim][{cited.number}] {escape(name)}, {place}: {escape(_line(cited.text))}[/dim]")


def _show_answer(context: Context, answer: str | None, as_json: bool) -> None:
    if as_json:
        shown = {"message": context.messages[-1]["content"] if context.messages else "", "answer": answer}
        kept = {name: getattr(context, name) for name in ("messages", "message_tokens", "degraded")}
        lists = {name: [vars(item) for item in getattr(context, name)] for name in ("turns", "citations", "recaps", "memories")}
        print_json({**shown, **kept, **lists})
    elif answer is not None:
        out.print(f"[bold]model>[/bold] {escape(answer)}")
    else:
        for message in context.messages or []:
            out.print(f"[cyan]{message['role']}[/cyan] {escape(message['content'])}")
        out.print(f"[dim]{context.message_tokens} tokens would be given to a model.[/dim]")


def _line(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= 160 else shown[:159] + "…"
