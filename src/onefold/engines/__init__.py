"""What runs a plan: the embedded engine; others follow."""
