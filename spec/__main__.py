"""python -m spec: search the scenarios, print a counter-example where there is one."""

from __future__ import annotations

import sys

from spec.model import Setting
from spec.safeguards import without
from spec.scenarios import SCENARIOS
from spec.search import search

for name in sys.argv[1:2] if len(sys.argv) > 1 and sys.argv[1] != "all" else SCENARIOS:
    r = search(Setting(SCENARIOS[name], without(*sys.argv[2:])))
    print(f"{name:18} states {r.states:8} steps {r.steps:8} depth {r.depth:3} {r.seconds:6.1f}s  {r.states/r.seconds:.0f}/s", flush=True)
    if r.finding:
        print("   ", r.finding.wrong)
        for x in r.finding.schedule: print("     ", x)
        print("    calm:")
        for x in r.finding.recovery: print("     ", x)
