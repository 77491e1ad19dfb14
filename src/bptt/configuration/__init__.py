"""From words on the command line to objects: composition, checks, building, and errors in one line."""

import warnings

# Lightning 2.6 uses a class of torch.utils._pytree that torch 2.13 has deprecated; users cannot change that.
warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="lightning")
# Lightning compares the number of batches with `log_every_n_steps`, which counts updates in this project.
warnings.filterwarnings("ignore", message="The number of training batches.*logging interval.*")
# Lightning recommends srun wherever Slurm is installed, even on a machine that only submits jobs.
warnings.filterwarnings("ignore", message="The `srun` command is available.*")
# Hydra's sweeper needs Optuna 2.10, which uses SQLAlchemy 1.4, which warns about its next version.
warnings.filterwarnings("ignore", message="Deprecated API features detected.*")
