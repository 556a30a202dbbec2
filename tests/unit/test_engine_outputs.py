"""The built-in sink."""

from __future__ import annotations

from pathlib import Path

import onefold as of
from onefold.engines.embedded.outputs import all_outputs
from onefold.engines.embedded.pipeline import DEAD_LETTERS


def test_a_moved_state_folder_keeps_its_sink_for_dead_letters(tmp_path: Path) -> None:
    flow = of.Flow("moved")
    flow.read(of.memory("moved-in"), schema={"id": "BIGINT"}, format="json").append(of.memory("moved-out"))
    here, there = (all_outputs(flow.plan, tmp_path / name)[DEAD_LETTERS] for name in ("here", "there"))
    assert here.binding_shape() == there.binding_shape(), "else epochs that wait for it could not be delivered there"
    assert here.label != there.label
