"""Seccomp profiles: read, compared, compiled, recorded.

Nothing is imported here: a start that finds its filter in the cache needs little of it.
"""
