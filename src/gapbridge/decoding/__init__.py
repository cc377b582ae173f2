"""The decoding engine: keyed noise, slot cache, mixed contexts and drafts."""

from .drafting import Draft, draft_answers
from .mixing import MixedContext, mix_contexts, mix_contexts_sequential


__all__ = ["Draft", "MixedContext", "draft_answers", "mix_contexts", "mix_contexts_sequential"]
