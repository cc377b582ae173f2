"""The decoding engine: keyed noise, slot cache, mixed contexts."""

from .mixing import MixedContext, mix_contexts, mix_contexts_sequential


__all__ = ["MixedContext", "mix_contexts", "mix_contexts_sequential"]
