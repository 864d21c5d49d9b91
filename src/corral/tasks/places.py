"""The agents of a plan, as tasks see them."""

from __future__ import annotations

from ..plan import Plan
from ..spec import Spec
from .commands import Place


def places(spec: Spec, plan: Plan) -> dict[int, Place]:
    """By number. An agent whose workspace is read-only changes nothing there."""
    planned = {agent.number: agent for agent in plan.agents}
    found = {}
    for agent in spec.agents:
        ours = planned[agent.number]
        environment = dict(ours.environment)
        known = {gateway.name: gateway for gateway in spec.gateways}
        names = known if agent.gateways is None else agent.gateways
        gateways = tuple(known[name] for name in names if name in known)
        found[agent.number] = Place(
            agent=agent.number,
            workdir=ours.workdir,
            folder=None if spec.workspace.read_only else spec.on_host(agent),
            lane="turns" if agent.workspace == "turns" else f"agent-{agent.number}",
            recipe=agent.recipe,
            home=environment.get("HOME", "/"),
            variables=frozenset(environment),
            gateways=gateways,
        )
    return found
