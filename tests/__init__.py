"""The tests, one folder a tier: tidy, unit, contract, property, crash, services, docs."""
