"""Every step and service that a stack can have."""

from local_stack.components import argilla, opensearch, postgres, programs, redis
from local_stack.plan import Service, Step

STEPS: dict[str, Step] = {
    step.name: step for step in (*postgres.STEPS, opensearch.STEP, *argilla.STEPS, programs.STEP)
}
SERVICES: dict[str, Service] = {
    service.name: service
    for service in (
        postgres.SERVICE,
        redis.SERVICE,
        opensearch.SERVICE,
        *argilla.SERVICES,
        *programs.SERVICES,
    )
}
ALL_PARTS: dict[str, Step | Service] = {**STEPS, **SERVICES}
INFRASTRUCTURE = frozenset({"postgres", "redis", "opensearch", "argilla", "argilla_worker"})
EVERYTHING = frozenset(SERVICES)
