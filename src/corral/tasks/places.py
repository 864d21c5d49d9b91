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
        gateways = tuple(
            gateway
            for gateway in spec.gateways
            if agent.gateways is None or gateway.name in agent.gateways
        )
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
