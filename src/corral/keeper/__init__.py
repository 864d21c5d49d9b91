"""Sandboxes that are kept: a keeper process each, its record on disk, its socket, its clients.

    store.Record.find("app")          what is on disk, whether it runs or not
    client.connect("app")             a running one, as if it were a Sandbox of this process
    launch.launch, life.keep          start one: as a process of its own, or as this one

Nothing is imported here: to list sandboxes takes little, to start one much.
"""
