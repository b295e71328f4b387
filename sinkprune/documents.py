"""Documents of a user's own: paragraphs of a text file, or the lines of a JSON-lines file, texts or chats."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

from sinkprune import corpus
from sinkprune.files import json_of, read_text
from sinkprune_core.values import in_short

JSON_LINES = (".jsonl", ".ndjson")
FORMS = 'a string, {"text": "…"}, or {"messages": [{"role": "user", "content": "…"}, …]}'

Conversation = Sequence[Mapping[str, object]]  # messages with `role` and `content`
Document = str | Conversation


def documents_in(file: str | os.PathLike) -> list[Document]:
    """Return the documents of a file: the lines of one that ends in .jsonl, else paragraphs.

    A line is a string, an object with a `text`, or one with the `messages` of a conversation. Raises
    ValueError, naming the line, for any other, and what `read_text` raises.
    """
    file = Path(file)
    text = read_text(file)
    if file.suffix.lower() not in JSON_LINES:
        return list(corpus.paragraphs(text))

    documents: list[Document] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number} of {file}"
        try:
            value = json_of(line)
        except ValueError as error:
            raise ValueError(f"{place} is not JSON ({error}): each line must be {FORMS}") from None
        document = document_of(value)
        if document is None:
            raise ValueError(f"{place} is {_described(value)}: each line must be {FORMS}")
        documents.append(document)
    return documents


def document_of(value: object) -> Document | None:
    """Return the document that a value is or holds, None where it is none, or has token ids already."""
    if isinstance(value, Mapping):
        if "input_ids" in value:
            return None
        held = value.get("text", value.get("messages"))
        return None if isinstance(held, Mapping) else document_of(held)
    if isinstance(value, str):
        return value
    return value if is_conversation(value) else None


def is_conversation(value: object) -> TypeGuard[Conversation]:
    """Return whether a value is a list of messages."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or not value:
        return False
    return all(isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in value)


def _described(value: object) -> str:
    """Return what a value is, in words."""
    if isinstance(value, Mapping):
        return f"an object with {', '.join(map(str, value)) or 'nothing in it'}"
    return in_short(value)


def written(documents: Iterable[Document], tokenizer) -> list[str]:
    """Return documents as texts: conversations as the tokenizer's chat template writes them.

    Raises ValueError for a conversation where there is no template, or that the template does not take.
    """
    return [
        document if isinstance(document, str) else _as_chat(document, tokenizer) for document in documents
    ]


def _as_chat(messages: Conversation, tokenizer) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the text has chat messages, and the model's tokenizer has no chat template to write them with: "
            "give plain text, or set tokenizer.chat_template"
        )

    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False)
    except Exception as error:  # whatever a template raises
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the chat template of the model's tokenizer does not take a conversation of the text "
            f"({reason}): look at its roles and their order"
        ) from None
