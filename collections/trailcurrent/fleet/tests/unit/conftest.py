"""How the property tests run: without a clock, since a busy machine is no defect, and leaving no files behind."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile(
    "fleet", deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("fleet")
