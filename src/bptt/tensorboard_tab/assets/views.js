// The views by name. A view defines the tags that it reads of each run, its figure, and its options.

import { bias } from "./view_bias.js";
import { lag } from "./view_lag.js";
import { spectrum } from "./view_spectrum.js";
import { timestep } from "./view_timestep.js";
import { training } from "./view_training.js";

export const VIEWS = { lag, timestep, training, bias, spectrum };
