"""From words on the command line to objects: composition, checks, building, and errors in one line."""

import warnings

# Lightning 2.6 asks torch 2.13's pytree in a way torch has deprecated; nothing a user could change.
warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="lightning")
# It compares batches with `log_every_n_steps`, which here counts updates.
warnings.filterwarnings("ignore", message="The number of training batches.*logging interval.*")
# It asks to be started by srun if Slurm is installed, also on the machine that only submits jobs.
warnings.filterwarnings("ignore", message="The `srun` command is available.*")
# Optuna 2.10, which Hydra's sweeper needs, uses SQLAlchemy 1.4, which warns of its successor.
warnings.filterwarnings("ignore", message="Deprecated API features detected.*")
