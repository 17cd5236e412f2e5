"""Comparative judgement of essays by LLM judges."""
