"""Changes of a sandbox, held back until they are looked at: snapshot, diff, apply, discard.

The guest works on a copy. What changed is found by this host, by comparing trees; no git is run on
anything that a guest could write. See docs/review.md.
"""
