"""Tasks: pieces of work for agents, given, queued, run, answered (docs/tasks.md).

    parse.task({"action": "run", "argv": ["make"]})     what is wanted, checked
    commands.command(task, place, actions)              what to run for it
    queue.Tasks(...).submit(task, agent=2)              queued; one at a time for each agent

Nothing is imported here: a client of a keeper needs little of it.
"""
