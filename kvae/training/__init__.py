"""What surrounds `fit`: the plan of a run, non-finite steps, steps per execution, checkpoints and live pictures."""
