"""The nine steps of a batch's life and what drives them, each safe to repeat and to kill.

`advance` drives them without a daemon and Dagster's assets call them one by one: two faces, one
engine. What a person starts outside a batch's own course is `operations`.
"""
