"""Tokenizers of checkpoint folders, read by transformers' own classes and never by remote code.

A folder that names a class of transformers gets that class, exactly as `AutoTokenizer` resolves it.
One that names none, or a class of its own (`auto_map`, as Dream's), is read by its files:
`vocab.json` with `merges.txt` as Qwen2's byte-level BPE, everything else as `TokenizersBackend`
reads it, which is what `AutoTokenizer` takes for classes that it does not know.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from dlm.errors import InvalidRequest

AS_ITS_FILE: Final = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Names that mean `tokenizer.json` as it is."""
VOCABULARIES: Final = (
    *("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json"),
    *("*.model", "*.tiktoken"),
)

IN_PLACE_OF_ANY: Final = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "tekken.json")
"""Files that transformers converts for any class."""

WANTED: Final = "tokenizer.json, tokenizer.model, or vocab.json with merges.txt"
"""The usual files of a tokenizer, in words."""

Settings = Mapping[str, Any]
"""The content of a JSON file."""


def no_tokenizer(param: str) -> InvalidRequest:
    """The error for a text that is given to a model without a tokenizer."""
    rule = f"this model came without a tokenizer: add its files ({WANTED}), or give token ids"
    return InvalidRequest(param, rule)


def load_tokenizer(folder: Path) -> Any | None:
    """The tokenizer in `folder`, None if there is none. Raises `InvalidRequest` if it is broken."""
    found = any(next(folder.glob(pattern), None) for pattern in VOCABULARIES)
    try:
        settings = _json(folder / "tokenizer_config.json")
        config = _json(folder / "config.json")
        name = settings.get("tokenizer_class") or config.get("tokenizer_class")
        if not found and name is None:
            return None
        _check_pieces(folder)
        tokenizer = _tokenizer(folder, name, config, {})
        _check_files(folder, tokenizer)
        if _misplaced(folder, settings, tokenizer):
            added = _without_gaps(_declared(folder, settings), tokenizer.vocab_size)
            tokenizer = _tokenizer(folder, name, config, {"added_tokens_decoder": added})
            _check_ids(_misplaced(folder, settings, tokenizer))
    except Exception as error:  # the libraries raise bare Exception on a malformed file
        reason = error.message if isinstance(error, InvalidRequest) else str(error)
        if isinstance(error, KeyError):
            reason = f"its files lack {reason}"
        elif not found:
            reason = f"its settings name {name}, but there is no {WANTED}"
        raise InvalidRequest(
            "model", f"the tokenizer in {folder} cannot be read: {reason}"
        ) from error
    tokenizer.model_max_length = sys.maxsize  # lengths are the engine's business: no warnings
    return tokenizer


def load_template(folder: Path, tokenizer: Any) -> str | None:
    """The template for chats: the only one, or of several the one named "default".

    `chat_template.json` is where processors of multimodal checkpoints keep theirs. None if there
    is no template, or none for use by default.
    """
    template = tokenizer.chat_template or _json(folder / "chat_template.json").get("chat_template")
    if isinstance(template, Mapping):
        template = template.get("default")
    return template if isinstance(template, str) else None


def _tokenizer(folder: Path, name: str | None, config: Settings, options: Settings) -> Any:
    """The tokenizer by its class `name`, or by its files; `options` win over its own settings.

    Importing `AutoTokenizer` takes 0.3 s: only where a class or a `model_type` of transformers is
    named, which may overrule each other.
    """
    family = str(config.get("model_type"))
    if name in (None, *AS_ITS_FILE) and not _is_theirs(family):
        return _by_files(folder, options)
    from transformers import CONFIG_MAPPING, AutoTokenizer, PreTrainedConfig
    from transformers.models.auto import tokenization_auto as auto

    if name is None or name in AS_ITS_FILE:
        known = family in auto.TOKENIZER_MAPPING_NAMES
    else:
        known = auto.tokenizer_class_from_name(name) is not None
    if not known:
        return _by_files(folder, options)
    # Of the config the class alone counts: fields that it would refuse must not matter here.
    model = CONFIG_MAPPING[family]() if family in CONFIG_MAPPING else PreTrainedConfig()
    model.tokenizer_class = config.get("tokenizer_class")
    return AutoTokenizer.from_pretrained(
        folder, config=model, trust_remote_code=False, local_files_only=True, **options
    )


def _is_theirs(family: str) -> bool:
    """True if transformers has a model of this `model_type`; its tables are not imported."""
    import transformers

    models = Path(transformers.__file__).parent / "models"
    return (models / family.replace("-", "_") / "__init__.py").is_file()


def _by_files(folder: Path, options: Settings) -> Any:
    """The tokenizer of a folder without a class that transformers knows."""
    from transformers import PreTrainedTokenizerFast

    def holds(*names: str) -> bool:
        return all((folder / name).is_file() for name in names)

    if not holds("tokenizer.json") and holds("vocab.json", "merges.txt"):
        from transformers import Qwen2Tokenizer

        return Qwen2Tokenizer.from_pretrained(folder, **options)
    if not holds("tokenizer.json") and holds("tokenizer.model"):
        options = {**_from_pieces(folder), **options}
    return PreTrainedTokenizerFast.from_pretrained(folder, **options)


def _from_pieces(folder: Path) -> dict[str, Any]:
    """The backend of a lone `tokenizer.model`, and its tokens that the settings do not name.

    Built apart from the folder's added tokens, with which transformers cannot read unigram models.
    """
    import transformers

    backend: Any = transformers.PreTrainedTokenizerFast
    files = {"vocab_file": str(folder / "tokenizer.model")}
    pieces = backend(**backend.convert_to_native_format(**files))
    settings = _json(folder / "tokenizer_config.json")
    named = {k: str(v) for k, v in pieces.special_tokens_map.items() if k.endswith("_token")}
    missing = {k: v for k, v in named.items() if k not in settings}
    return {"tokenizer_object": pieces.backend_tokenizer, **missing}


def _check_pieces(folder: Path) -> None:
    """Refuse a `tokenizer.model` that cannot be converted: transformers would try it as another
    format, and report that.
    """
    path = folder / "tokenizer.model"
    if (folder / "tokenizer.json").is_file() or not path.is_file():
        return
    try:
        proto = import_module("sentencepiece.sentencepiece_model_pb2")
    except Exception as error:  # missing, or older than the generated code
        raise InvalidRequest("model", f"tokenizer.model needs protobuf: {error}") from error
    try:
        proto.ModelProto().ParseFromString(path.read_bytes())
    except Exception as error:
        if find_spec("tiktoken") is None:
            raise InvalidRequest(
                "model", f"tokenizer.model is no model of sentencepiece: {error}"
            ) from error


def _check_files(folder: Path, tokenizer: Any) -> None:
    """Refuse a class none of whose files is there: it would start with a vocabulary of its own."""
    names = [name for name in type(tokenizer).vocab_files_names.values() if name]
    if names and not any((folder / name).is_file() for name in (*names, *IN_PLACE_OF_ANY)):
        wanted = " or ".join(sorted(set(names)))
        raise InvalidRequest("model", f"{type(tokenizer).__name__} needs {wanted}")


def _declared(folder: Path, settings: Settings) -> dict[int, Any]:
    """The added tokens that the files list, by their ids."""
    listed = settings.get("added_tokens_decoder")
    if listed is not None:
        return {int(index): token for index, token in listed.items()}
    return {
        int(index): {"content": token, "normalized": False}
        for token, index in _json(folder / "added_tokens.json").items()
    }


def _misplaced(folder: Path, settings: Settings, tokenizer: Any) -> dict[str, int]:
    """The added tokens that have other ids than in their files.

    The libraries number them on from the last piece, whatever is written; `tokenizer.json` is
    theirs, and read by them as it is written.
    """
    if (folder / "tokenizer.json").is_file():
        return {}
    spelled = {
        token["content"]: index
        for index, token in _declared(folder, settings).items()
        if index >= tokenizer.vocab_size
    }
    return {
        content: index
        for content, index in spelled.items()
        if tokenizer.convert_tokens_to_ids(content) != index
    }


def _without_gaps(declared: dict[int, Any], size: int) -> dict[int, Any]:
    """The added tokens, with reserved ones at the ids between the last piece and the last token."""
    reserved = {
        index: {"content": f"<|reserved_{index}|>", "special": True, "normalized": False}
        for index in range(size, max(declared))
    }
    return dict(sorted((reserved | declared).items()))


def _check_ids(misplaced: Mapping[str, int]) -> None:
    """Refuse tokens that cannot have the ids of their files."""
    for token, index in misplaced.items():
        raise InvalidRequest("model", f"{token!r} cannot be given the id {index} of its files")


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, `{}` if there is no file."""
    content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if not isinstance(content, dict):
        raise InvalidRequest("model", f"{path.name} must hold a JSON object")
    return content
