"""Which guarantee a plan really has, and why."""
