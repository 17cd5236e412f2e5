"""Who made a model: judges of one maker err alike more often than their verdicts show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "OpenAI": ("gpt", "chatgpt", "o1", "o3", "o4", "davinci"),
    "Anthropic": ("claude",),
    "Google": ("gemini", "gemma", "palm"),
    "Meta": ("llama", "vicuna"),
    "Mistral": ("mistral", "mixtral", "ministral", "magistral"),
    "Alibaba": ("qwen", "qwq"),
    "DeepSeek": ("deepseek",),
    "xAI": ("grok",),
    "Cohere": ("command", "aya"),
    "Microsoft": ("phi",),
}


def maker_of(model: str) -> str | None:
    """Return who made a model, by its name; None where the name does not say.

    Names such as `org/model-size` are read by their last part.
    """
    name = model.rsplit("/", 1)[-1].lower()
    for maker, families in _FAMILIES.items():
        if any(name.startswith(family) for family in families):
            return maker
    return None


def of_one_maker(judges: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the names of judges that share a maker, by maker.

    Args:
        judges: Rows with `name`, `model` and `is_simulated`; simulated judges have no maker.
    """
    by_maker: dict[str, list[str]] = defaultdict(list)
    for judge in judges:
        maker = None if judge["is_simulated"] else maker_of(judge["model"])
        if maker is not None:
            by_maker[maker].append(judge["name"])
    return {maker: names for maker, names in by_maker.items() if len(names) > 1}
